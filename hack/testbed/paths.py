"""Where the test bed keeps things: never in the checkout, so that checkouts share the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from testbed.errors import LabError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent.parent

# A node puts fresh file systems over these, so nothing that a node must see may lie below them.
COVERED_IN_NODES = (Path("/run"), Path("/var/run"), Path("/var/lib"), Path("/var/log"))


def cache_root() -> Path:
    """Built tools, Debian packages and prepared images: safe to delete, costly to make again."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return _usable(Path(base) / "distkv-testbed", "XDG_CACHE_HOME")


def cluster_root(name: str) -> Path:
    """Everything that one running cluster has on disk; `down` removes it."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,20}", name):
        raise LabError(
            f"--name {name!r} is no cluster name",
            "use 1 to 21 lower-case letters, digits and hyphens, a letter first",
        )
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return _usable(Path(base) / "distkv-testbed" / name, "XDG_STATE_HOME")


def _usable(path: Path, variable: str) -> Path:
    path = path.absolute()
    for covered in COVERED_IN_NODES:
        if path.is_relative_to(covered):
            raise LabError(
                f"{path} would be hidden inside the nodes, which have a {covered} of their own",
                f"set {variable} to a folder outside {covered}",
            )
    return path
