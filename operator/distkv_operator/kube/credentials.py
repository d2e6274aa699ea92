"""Who we are to the API server: a pod's service account, else a kubeconfig."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kopf
import yaml

EXEC_SECONDS = 60


class NoCredentials(Exception):
    """There is neither a service account nor a usable kubeconfig; the message says what to do."""


def login() -> kopf.ConnectionInfo:
    """Read afresh each time, because service account tokens are replaced every hour.

    Raises NoCredentials.
    """
    settings = kopf.OperatorSettings()
    info = kopf.login_with_service_account(settings=settings)
    if info is not None:
        return info
    try:
        info = kopf.login_with_kubeconfig(settings=settings)
    except (OSError, KeyError, yaml.YAMLError, kopf.LoginError) as error:
        raise NoCredentials(f"the kubeconfig cannot be used: {error}") from error
    if info is None or not info.server:
        raise NoCredentials(
            "this is not a pod with a service account, and there is no kubeconfig: set KUBECONFIG"
        )
    if info.token or info.certificate_data or info.certificate_path or info.username:
        return info
    return _by_command(info)


def _by_command(info: kopf.ConnectionInfo) -> kopf.ConnectionInfo:
    """Credentials from the command a cloud's kubeconfig names (client-go's exec plugins)."""
    command = _exec_section()
    if command is None:
        return info
    request = {
        "apiVersion": command.get("apiVersion", "client.authentication.k8s.io/v1"),
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    environment = os.environ | {"KUBERNETES_EXEC_INFO": json.dumps(request)}
    environment |= {item["name"]: item["value"] for item in command.get("env") or []}
    words = [command["command"], *(command.get("args") or [])]
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, check=True, timeout=EXEC_SECONDS
        )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise NoCredentials(f"{words[0]} (named by the kubeconfig) failed: {error}") from error
    return dataclasses.replace(
        info,
        token=status.get("token"),
        certificate_data=_text(status.get("clientCertificateData")),
        private_key_data=_text(status.get("clientKeyData")),
    )


def _text(pem: str | None) -> bytes | None:
    return None if pem is None else pem.encode()


def _exec_section() -> dict[str, Any] | None:
    """`user.exec` of the current context; the first file that names a thing decides."""
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [yaml.safe_load(Path(p).expanduser().read_text()) for p in paths.split(os.pathsep) if p]
    current = next((f["current-context"] for f in files if f and f.get("current-context")), None)

    def named(section: str, name: Any) -> dict[str, Any]:
        entries = [e for f in files if f for e in f.get(section) or [] if e["name"] == name]
        return entries[0] if entries else {}

    context = named("contexts", current).get("context") or {}
    user = named("users", context.get("user")).get("user") or {}
    found = user.get("exec")
    return found if isinstance(found, dict) else None
