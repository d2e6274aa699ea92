"""The nodes as the agents see them: a file that the launcher rewrites when a node comes or goes."""

from __future__ import annotations

import json
import os
from pathlib import Path


class NodeFile:
    """Node name -> process id, in the hub's numbering, of the node's first process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, nodes: dict[str, int]) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(nodes))
        os.replace(partial, self._path)

    def read(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._path.read_text())
        return {name: pid for name, pid in found.items() if Path(f"/proc/{pid}").exists()}
