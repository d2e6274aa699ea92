"""`python -m testbed.ready`: whether the tests on a real Kubernetes can run here, and why not."""

from __future__ import annotations

import os
import shutil
import sys

from testbed.errors import LabError
from testbed.kind import container_daemon
from testbed.namespaces import host
from testbed.namespaces.tools import find_go


def why_not() -> str:
    """Empty if they can. It looks only; what can be installed or built counts as there."""
    if container_daemon() is not None:
        absent = [name for name in ("kind", "kubectl", "helm") if shutil.which(name) is None]
        return f"a container daemon answers, but there is no {', '.join(absent)}" if absent else ""
    if os.geteuid() != 0:
        return "not root, and no Docker or Podman daemon answers"
    try:
        host.check_kernel()
        find_go()
    except (LabError, OSError) as error:
        return " ".join(str(error).split())
    missing = host.missing_packages()
    if missing and shutil.which("apt-get") is None:
        return f"not installed: {', '.join(missing)}"
    return ""


if __name__ == "__main__":
    reason = why_not()
    print(reason or "ready")
    sys.exit(1 if reason else 0)
