"""Calling kubectl, and saying what it refused in words that help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from distkv_operator import names

Manifest = dict[str, Any]
SECONDS = 30


class PluginError(Exception):
    """What went wrong and what to do, for people."""


class Kubectl:
    """`options`: --context, --kubeconfig and --namespace as the user gave them."""

    def __init__(
        self,
        context: str | None = None,
        kubeconfig: str | None = None,
        namespace: str | None = None,
    ) -> None:
        program = os.environ.get("KUBECTL") or shutil.which("kubectl")
        if program is None:
            raise PluginError("kubectl is not on the PATH: install it, or name it in $KUBECTL")
        self._command = [program]
        for flag, value in (("--context", context), ("--kubeconfig", kubeconfig)):
            if value is not None:
                self._command += [flag, value]
        self._namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output. Raises PluginError."""
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PluginError(f"the API server did not answer within {SECONDS} s") from None
        except OSError as error:
            raise PluginError(f"{self._command[0]} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            raise PluginError(_explained(done.stderr))
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Its output, parsed. Raises PluginError."""
        return json.loads(self.run(*arguments))

    @property
    def namespace(self) -> str:
        """As given, else that of the context."""
        if self._namespace is None:
            path = "jsonpath={..namespace}"
            found = self.run("config", "view", "--minify", "-o", path).split()
            self._namespace = found[0] if found else "default"
        return self._namespace

    def clusters(self, all_namespaces: bool = False) -> list[Manifest]:
        """All DistKVClusters there. Raises PluginError."""
        where = ["--all-namespaces"] if all_namespaces else ["--namespace", self.namespace]
        items: list[Manifest] = self.json("get", names.CRD, *where, "-o", "json")["items"]
        return items

    def cluster(self, name: str | None) -> Manifest:
        """The one of that name; without a name the only one. Raises PluginError."""
        if name is not None:
            found: Manifest = self.json(
                "get", names.CRD, name, "--namespace", self.namespace, "-o", "json"
            )
            return found
        found_all = self.clusters()
        if len(found_all) == 1:
            return found_all[0]
        known = ", ".join(item["metadata"]["name"] for item in found_all)
        if not found_all:
            raise PluginError(
                f"there is no DistKVCluster in namespace {self.namespace}: give another "
                "--namespace, or see `kubectl get dkv --all-namespaces`"
            )
        raise PluginError(f"which one? There are {known} in namespace {self.namespace}: name one")

    def patch(self, name: str, patch: Manifest) -> None:
        """Merge into the resource. Raises PluginError."""
        options = ["--namespace", self.namespace, "--type=merge", "-p", json.dumps(patch)]
        self.run("patch", names.CRD, name, *options)

    def node_status(self, pod: str) -> Manifest:
        """What the node itself says now, through the API server. Raises PluginError."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{names.HTTP_PORT}/proxy/v1/status"
        found: Manifest = self.json("get", "--raw", path)
        return found


def _explained(stderr: str) -> str:
    """kubectl's own words, with a remedy where it is not obvious."""
    text = stderr.strip().removeprefix("Error from server ").removeprefix("error: ")
    if "the server doesn't have a resource type" in text:
        return (
            "this Kubernetes cluster does not know DistKVCluster: install the operator first "
            "(kubectl apply -f hack/install.yaml)"
        )
    if "current-context must exist" in text:
        return (
            "no kubeconfig with a current context was found: set KUBECONFIG, or give --kubeconfig "
            "or --context (`kubectl config get-contexts` lists them)"
        )
    if "Unable to connect to the server" in text or "was refused" in text:
        return f"{text}\nIs the right context chosen? See `kubectl config get-contexts`"
    return text or "kubectl failed and said nothing"
