"""What tests do with a cluster: apply, read, wait, run things in pods. It knows no provider."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from testbed.errors import LabError
from testbed.paths import CHECKOUT
from testbed.provider import Provider
from testbed.run import run, wait_until

Manifest = dict[str, Any]
KUBE = CHECKOUT / "hack" / "kube"
SECURITY = "pod-security.kubernetes.io/enforce"


def hack_kube(*arguments: str, timeout: float = 1800) -> str:
    """The launcher itself, as a person would call it; what it says on success."""
    done = run([KUBE, *arguments], timeout=timeout)
    return done.stdout + done.stderr


class Cluster:
    """A running cluster. Everything that is read comes fresh from its API server."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._kubectl = list(provider.kubectl())

    @property
    def kubeconfig(self) -> Path:
        return self.provider.kubeconfig()

    def call(
        self, *arguments: str, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """A kubectl command, whatever it ends with."""
        return run([*self._kubectl, *arguments], stdin=stdin, check=False, timeout=timeout)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        done = self.call(*arguments, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise LabError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def get(self, *arguments: str) -> Manifest:
        found: Manifest = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[Manifest]:
        items: list[Manifest] = self.get(*arguments)["items"]
        return items

    def apply(self, *manifests: Manifest) -> None:
        listing = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listing))

    def wait(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        """Asks until it is so; a refusal meanwhile counts as not yet."""

        def holds() -> bool:
            try:
                return condition()
            except (LabError, KeyError, IndexError):
                return False

        wait_until(what, holds, timeout, every=0.1)

    def ready(self, kind: str, name: str = "", *arguments: str, timeout: int = 90) -> None:
        target = [f"{kind}/{name}"] if name else [kind, "--all"]
        options = ["--for=condition=Ready", f"--timeout={timeout}s", *arguments]
        self.kubectl("wait", *options, *target, timeout=timeout + 30)

    def node_ready(self, name: str) -> bool:
        conditions = self.get("node", name)["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    @contextlib.contextmanager
    def space(
        self, level: str = "privileged", prefix: str = "test", keep: bool = False
    ) -> Iterator[Space]:
        """A namespace of its own that is gone, with all that was in it, at the end."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        labels = {SECURITY: level}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
        account = ["-n", name, "serviceaccount", "default"]
        self.wait(f"service account of {name}", lambda: bool(self.get(*account)))
        try:
            yield Space(self, name)
        finally:
            if not keep:
                self.kubectl("delete", "namespace", name, "--wait=false")


class Space:
    """One namespace of a cluster."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def apply(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            manifest["metadata"]["namespace"] = self.name
        self.cluster.apply(*manifests)

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, timeout=timeout)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.cluster.call("-n", self.name, *arguments)

    def get(self, *arguments: str) -> Manifest:
        return self.cluster.get("-n", self.name, *arguments)

    def items(self, *arguments: str) -> list[Manifest]:
        return self.cluster.items("-n", self.name, *arguments)

    def ready(self, kind: str, name: str = "", timeout: int = 90) -> None:
        self.cluster.ready(kind, name, "-n", self.name, timeout=timeout)

    def run(self, pod: str, *command: str) -> str:
        return self.kubectl("exec", pod, "--", *command)

    def attempt(self, pod: str, *command: str) -> bool:
        return self.call("exec", pod, "--", *command).returncode == 0

    def address(self, pod: str) -> str:
        return str(self.get("pod", pod)["status"]["podIP"])

    def lines(self, pod: str) -> Sequence[str]:
        return self.kubectl("logs", pod).splitlines()
