"""Which provider `up` takes, and what is missing where none can be taken."""

from __future__ import annotations

import os

from testbed.current import CurrentProvider
from testbed.errors import LabError
from testbed.kind import KindProvider, container_daemon
from testbed.progress import Progress
from testbed.provider import Provider

PROVIDERS = ("kind", "namespaces", "current")


def make(provider: str, cluster: str, progress: Progress) -> Provider:
    match provider:
        case "kind":
            return KindProvider(cluster, progress)
        case "namespaces":
            # Imported here, because only this provider needs the cryptography package.
            from testbed.namespaces.provider import NamespacesProvider

            return NamespacesProvider(cluster, progress)
        case "current":
            return CurrentProvider(cluster)
        case other:
            raise LabError(f"there is no provider {other!r}", f"take one of {', '.join(PROVIDERS)}")


def choose(wanted: str, cluster: str, running: str | None, progress: Progress) -> Provider:
    """The provider for `up`. A cluster that is up under this name already decides it."""
    if running is not None:
        if wanted not in ("auto", running):
            raise LabError(
                f"a cluster of provider {running} is up under this name",
                "take it down first (hack/kube down), or give another --name",
            )
        return make(running, cluster, progress)
    if wanted != "auto":
        return make(wanted, cluster, progress)
    found = auto(container_daemon(), os.geteuid() == 0)
    progress.step(f"provider {found}")
    return make(found, cluster, progress)


def auto(daemon: str | None, root: bool) -> str:
    if daemon is not None:
        return "kind"
    if root:
        return "namespaces"
    raise LabError(
        "no cluster can be had here: no Docker or Podman daemon answers, and you are not root",
        "start Docker, or run as root (sudo hack/kube up), or use --provider current",
    )
