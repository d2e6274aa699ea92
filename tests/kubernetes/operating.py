"""What the tests of the operator share: installing it, a small cluster, clients in pods."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from testbed.harness import Cluster, Manifest, Space, hack_kube
from testbed.image.layer import Layer
from testbed.image.oci import write_archive
from testbed.manifests import IDLE, RESTRICTED
from testbed.paths import CHECKOUT

OPERATOR_SPACE = "distkv-system"
IMAGE = "distkv:dev"
REDIS_IMAGE = "distkv-test-redis:1"
READY_SECONDS = 180


@contextlib.contextmanager
def installed(cluster: Cluster) -> Iterator[Operator]:
    """The operator as hack/install.yaml has it; at the end it is taken away, the kind stays."""
    documents = yaml.safe_load_all((CHECKOUT / "hack" / "install.yaml").read_text())
    manifests = [document for document in documents if document]
    cluster.apply(*manifests)
    operator = Operator(cluster)
    try:
        operator.wait()
        yield operator
    finally:
        for manifest in manifests:
            if manifest["kind"] not in ("CustomResourceDefinition", "Namespace"):
                place = ["-n", manifest["metadata"].get("namespace", "default")]
                name = f"{manifest['kind']}/{manifest['metadata']['name']}"
                cluster.call(*place, "delete", name, "--ignore-not-found")


class Operator:
    """The operator's Deployment."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def wait(self) -> None:
        """Until its pod is ready."""
        self._cluster.kubectl(
            *("-n", OPERATOR_SPACE, "rollout", "status", "deployment/distkv-operator"),
            "--timeout=120s",
            timeout=150,
        )

    def kill(self) -> None:
        """At once, in the middle of whatever it does; its Deployment starts another."""
        self._cluster.kubectl(
            *("-n", OPERATOR_SPACE, "delete", "pod", "--all", "--force", "--grace-period=0")
        )

    def scale(self, replicas: int) -> None:
        """0: there is no operator any more."""
        self._cluster.kubectl(
            *("-n", OPERATOR_SPACE, "scale", "deployment/distkv-operator"),
            f"--replicas={replicas}",
        )

    def pods(self) -> list[Manifest]:
        return self._cluster.items("-n", OPERATOR_SPACE, "pods")


class Store:
    """A DistKVCluster of a namespace."""

    def __init__(self, space: Space, name: str = "store") -> None:
        self.space, self.name = space, name

    def apply(self, **spec: Any) -> None:
        small = {"requests": {"cpu": "20m", "memory": "128Mi"}}
        wanted: Manifest = {
            "dataShards": 3,
            "parityShards": 2,
            "storage": {"size": "400Mi"},
            "resources": small,
            "gateway": {"replicas": 2, "resources": small},
            "volumeLossPolicy": {"delay": "15s"},
        }
        self.space.apply(
            {
                "apiVersion": "distkv.io/v1alpha1",
                "kind": "DistKVCluster",
                "metadata": {"name": self.name},
                "spec": wanted | spec,
            }
        )

    def patch(self, **spec: Any) -> None:
        text = json.dumps({"spec": spec})
        self.space.kubectl("patch", "dkv", self.name, "--type=merge", "-p", text)

    @property
    def status(self) -> Manifest:
        found: Manifest = self.space.get("dkv", self.name)["status"]
        return found

    def condition(self, kind: str) -> Manifest:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def wait(
        self, what: str, condition: Callable[[], bool], timeout: float = READY_SECONDS
    ) -> None:
        self.space.cluster.wait(what, condition, timeout)

    def wait_ready(self) -> None:
        """Ready, of the present generation, and no shard missing."""

        def ready() -> bool:
            resource = self.space.get("dkv", self.name)
            status = resource["status"]
            states = {c["type"]: c["status"] for c in status["conditions"]}
            return (
                status["observedGeneration"] == resource["metadata"]["generation"]
                and states["Ready"] == states["ShardsHealthy"] == "True"
            )

        self.wait(f"{self.name} to be ready", ready)

    def pod(self, ordinal: int) -> Manifest:
        return self.space.get("pod", f"{self.name}-{ordinal}")

    def uid(self, kind: str, name: str) -> str:
        return str(self.space.get(kind, name)["metadata"]["uid"])

    @contextlib.contextmanager
    def watched(self, file: Path) -> Iterator[Callable[[], list[Manifest]]]:
        """While it lasts, every version of the resource goes into `file`; what is given asks for
        all statuses so far, the present one among them, in their order."""
        command = [*self.space.cluster.provider.kubectl(), "-n", self.space.name]
        command += ["get", "dkv", self.name, "--watch", "-o", "json"]

        def versions() -> list[Manifest]:
            return list(documents(file.read_text()))

        def statuses() -> list[Manifest]:
            now = self.space.get("dkv", self.name)["metadata"]["resourceVersion"]

            def is_there() -> bool:
                return any(v["metadata"]["resourceVersion"] == now for v in versions())

            self.wait(f"the watch to come to version {now}", is_there, 30)
            return [version["status"] for version in versions()]

        with file.open("w") as output:
            process = subprocess.Popen([str(word) for word in command], stdout=output)
        try:
            self.wait("the watch to begin", lambda: bool(versions()), 30)
            yield statuses
        finally:
            process.terminate()
            process.wait(30)


def client_pod(space: Space, name: str = "client", image: str = IMAGE) -> str:
    """A pod that waits for `exec`."""
    container = {"name": "main", "image": image, "command": list(IDLE)}
    container["securityContext"] = dict(RESTRICTED)
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    meta = {"name": name, "labels": {"app": name}}
    space.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    space.ready("pod", name)
    return name


def documents(text: str) -> Iterator[Manifest]:
    """JSON documents one after the other; the last may not be there whole yet."""
    decoder, at = json.JSONDecoder(), 0
    while (at := len(text) - len(text[at:].lstrip())) < len(text):
        try:
            document, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        yield document


WRITER = '''
import json, socket, sys, time

host, seconds, size, keys = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
patience = 15.0
link = None


def ask(*words):
    """One command; reconnects and repeats until it is answered, or patience is over."""
    global link
    raw = b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in words)
    until, why = time.monotonic() + patience, None
    while time.monotonic() < until:
        sent = False
        try:
            if link is None:
                link = socket.create_connection((host, 6379), 3).makefile("rwb")
            sent = True
            link.write(raw)
            link.flush()
            line = link.readline()
            if line[:1] == b"$":
                return link.read(int(line[1:]) + 2)[:-2] if line[1:2] != b"-" else None
            if line[:1] == b"+":
                return line
            why = line.decode()
        except OSError as error:
            why = str(error)
        refused = why.startswith(("-BUSY", "-NOQUORUM", "-NOTFORMED"))
        if words[0] == b"SET" and sent and not refused:
            doubtful.add((words[1], words[2]))  # it may be applied yet, behind a later one
        if not why:
            why = "connection lost"
        link = None
        time.sleep(0.1)
    raise SystemExit("given up: " + why)


def value(number):
    return (b"%d " % number) * (size // len(b"%d " % number))


doubtful = set()
written, until = 0, time.monotonic() + seconds
while time.monotonic() < until:
    ask(b"SET", b"key-%d" % (written % keys), value(written))
    written += 1
last = range(max(0, written - keys), written)
wrong = []
for n in last:
    found = ask(b"GET", b"key-%d" % (n % keys))
    if found != value(n) and (b"key-%d" % (n % keys), found) not in doubtful:
        wrong.append(n)
print(json.dumps({"written": written, "wrong": wrong}))
'''


class Writer:
    """Writes through the gateway for a while, then reads everything back.

    Only so many keys: what a repair has to do then does not depend on how fast the machine is.
    """

    KEYS = 150

    def __init__(self, store: Store, pod: str, seconds: float, size: int = 6000) -> None:
        command = [*store.space.cluster.provider.kubectl(), "-n", store.space.name, "exec", pod]
        command += ["--", "python", "-c", WRITER, f"{store.name}-gateway", str(seconds), str(size)]
        command.append(str(self.KEYS))
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def is_writing(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> int:
        """How many values were written; fails if one was refused for good, or reads wrong."""
        output, errors = self._process.communicate(timeout=300)
        assert self._process.returncode == 0, errors
        result = json.loads(output)
        assert result["wrong"] == []
        assert result["written"] > 0
        return int(result["written"])


def load_redis_image(folder: Path) -> str:
    """An image with Debian's redis-cli and its libraries."""
    program = shutil.which("redis-cli")
    assert program is not None, "hack/setup redis-tools installs it"
    layer = Layer()
    layer.file("usr/bin/redis-cli", Path(program).read_bytes(), 0o755)
    layer.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    layer.file("bin/sleep", Path("/bin/busybox").read_bytes(), 0o755)
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in sorted(set(re.findall(r"(/\S+)", linked))):
        layer.file(library.lstrip("/"), Path(library).read_bytes(), 0o755)
    write_archive(folder / "redis.tar", REDIS_IMAGE, [layer.to_bytes()], {})
    hack_kube("load-image", str(folder / "redis.tar"))
    return REDIS_IMAGE
