"""Tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show_cluster(found: dict[str, Any]) -> None:
    """The answer of the supervisor's status command."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    k, m = found["data_shards"], found["parity_shards"]
    formed = "formed" if found["formed"] else "not formed yet"
    console.print(
        f"cluster [bold]{found['name']}[/] {k}+{m}, {formed}, "
        f"leader {_text(found['leader'])}, shards missing {_text(found['shards_missing'])}, "
        f"corrupt {_text(found['shards_corrupt'])}",
        highlight=False,
    )
    columns = ("node", "process", "role", "state", "applied", "shards", "missing", "corrupt")
    table = Table(*columns, "RESP", "HTTP", "pid")
    for node in found["nodes"]:
        table.add_row(
            str(node["ordinal"]),
            _colour(node["process"]),
            _text(node["role"]),
            _text(node["state"]),
            _text(node["applied"]),
            _text(node["shards"]),
            _text(node["shards_missing"]),
            _text(node["shards_corrupt"]),
            str(node["ports"]["resp"]),
            str(node["ports"]["http"]),
            _text(node["pid"]),
        )
    gateway = found["gateway"]
    table.add_row(
        "gateway",
        _colour(gateway["process"]),
        "",
        "ready" if gateway["ready"] else "not ready",
        *[""] * 4,
        gateway["resp"].rpartition(":")[2],
        gateway["http"].rpartition(":")[2],
        _text(gateway["pid"]),
    )
    console.print(table)
    for node in found["nodes"]:
        detail = node["detail"] if node["replacement"] is None else node["replacement"]["detail"]
        if detail:
            console.print(f"node {node['ordinal']}: {detail}", highlight=False, soft_wrap=True)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _colour(process: str) -> str:
    colours = {"running": "green", "down": "yellow", "stopped": "yellow", "exited": "red"}
    return f"[{colours[process]}]{process}[/]"
