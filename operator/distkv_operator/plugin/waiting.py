"""Following a repair until no shard is missing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distkv_operator.plugin import view
from distkv_operator.plugin.kubectl import PluginError

Manifest = dict[str, Any]
POLL_SECONDS = 1.0


def is_repaired(cluster: Manifest, node: int | None) -> bool:
    """No shard is missing anywhere, every seat is taken, and `node`, if given, is replaced."""
    status = cluster.get("status", {})
    if node is not None and view.seat(cluster, node) == view.replacing(cluster).get(node):
        return False
    members = status.get("members", [])
    ready = bool(members) and all(member.get("ready") for member in members)
    return ready and (status.get("shards") or {}).get("missing") == 0


def wait_for_repair(
    look: Callable[[], Manifest],
    node: int | None,
    timeout: float,
    show: bool,
    pause: Callable[[float], None] = time.sleep,
) -> Manifest:
    """The summary once it is repaired. Raises PluginError with what it waited for."""
    end = time.monotonic() + timeout
    most = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TimeElapsedColumn(),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=not show, transient=True) as progress:
        task = progress.add_task("repair", total=None)
        while True:
            cluster = look()
            status = cluster.get("status", {})
            missing = (status.get("shards") or {}).get("missing", 0)
            most = max(most, missing)
            progress.update(
                task,
                description=situation(cluster, node),
                total=most or None,
                completed=most - missing,
            )
            if is_repaired(cluster, node):
                break
            if time.monotonic() > end:
                raise PluginError(
                    f"not repaired after {timeout:.0f} s: {situation(cluster, node)}; it goes on, "
                    "see `kubectl distkv status`"
                )
            pause(POLL_SECONDS)
    if show:
        console.print("no shard is missing, every node serves", style="green", highlight=False)
    return view.summary(cluster)


def situation(cluster: Manifest, node: int | None) -> str:
    """What is waited for, in a few words."""
    for member in cluster.get("status", {}).get("members", []):
        if (node is None or member["ordinal"] == node) and not member.get("ready"):
            state = member.get("state") or "does not answer"
            return f"node {member['ordinal']}: {state}"
    return "repair"
