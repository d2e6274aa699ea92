"""Screens of `kubectl distkv`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distkv_operator.plugin import view

Manifest = dict[str, Any]
COLOURS = {"True": "green", "False": "red", "Unknown": "yellow"}
MARKS = {"True": "yes", "False": "no", "Unknown": "?"}
BAD_WHEN_TRUE = ("Progressing", "KeyMissing")
_UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def amount(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return ""
    for factor, unit in _UNITS:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float | None) -> str:
    """ "3h12m", "45s"."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def age(timestamp: str | None, now: datetime.datetime) -> str:
    """Since a time of Kubernetes."""
    if not timestamp:
        return ""
    then = datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    return duration(max(0.0, (now - then).total_seconds()))


def cluster_screen(
    cluster: Manifest, members: Iterable[Manifest], now: datetime.datetime
) -> RenderableType:
    """Everything about one cluster."""
    parts: list[RenderableType] = [_heading(cluster, now)]
    if view.is_paused(cluster):
        parts.append(Text("paused: the operator changes nothing (kubectl distkv resume)", "yellow"))
    for ordinal in sorted(view.replacing(cluster)):
        parts.append(Text(f"node {ordinal} was given up and is replaced", "yellow"))
    conditions = cluster.get("status", {}).get("conditions", [])
    if conditions:
        parts += ["", conditions_table(conditions, now)]
    else:
        parts += ["", Text("the operator has not said anything yet: does it run?", "yellow")]
    parts += ["", members_table(members)]
    return Group(*parts)


def _heading(cluster: Manifest, now: datetime.datetime) -> Table:
    status = cluster.get("status", {})
    metadata, shards = cluster["metadata"], status.get("shards") or {}
    failures, gateway = status.get("failures") or {}, status.get("gateway") or {}
    ready = view.condition(cluster, "Ready")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()

    def row(label: str, *words: object) -> None:
        text = "  ".join(str(word) for word in words if word not in (None, ""))
        if text:
            grid.add_row(label, text)

    grid.add_row(
        "cluster",
        Text.assemble(
            (f"{metadata.get('namespace', '')}/{metadata['name']}  ", "bold"),
            (f"ready: {MARKS[ready]}", COLOURS[ready]),
        ),
    )
    row("age", age(metadata.get("creationTimestamp"), now))
    row("layout", status.get("layoutSummary"), _epoch(status))
    row("nodes", status.get("nodesSummary"), _leader(status))
    if "survivable" in failures:
        row(
            "may be lost", f"{failures['survivable']} of {failures.get('tolerated', '?')} nodes now"
        )
    if shards:
        grid.add_row("shards", _shards(shards))
    row("keys", status.get("keys"))
    if gateway.get("replicas"):
        row("gateways", f"{gateway.get('ready', 0)}/{gateway['replicas']}")
    endpoints = status.get("endpoints") or {}
    row("clients", endpoints.get("redis"), endpoints.get("http"))
    row("version", status.get("version"), status.get("image"))
    return grid


def _epoch(status: Mapping[str, Any]) -> str:
    epoch = (status.get("layout") or {}).get("epoch")
    return f"epoch {epoch}" if epoch is not None else ""


def _leader(status: Mapping[str, Any]) -> str:
    leader = status.get("leader")
    return "no leader" if leader is None else f"leader: {leader}"


def _shards(shards: Mapping[str, Any]) -> Text:
    missing, corrupt = shards.get("missing"), shards.get("corrupt", 0)
    return Text.assemble(
        f"{shards.get('held', 0)} held ({amount(shards.get('bytes'))})  ",
        ("not counted yet", "")
        if missing is None
        else (f"{missing} missing", "red" if missing else "green"),
        (f"  {corrupt} corrupt", "red" if corrupt else "green"),
    )


def conditions_table(
    conditions: Iterable[Mapping[str, Any]], now: datetime.datetime
) -> RenderableType:
    """One line each; the messages say what to do."""
    table = _table("condition", "holds", "since", "reason", "message")
    for entry in conditions:
        status = str(entry["status"])
        colour = COLOURS.get(status, "yellow")
        if entry["type"] in BAD_WHEN_TRUE:
            colour = {"green": "yellow", "red": "green"}.get(colour, colour)
        table.add_row(
            entry["type"],
            Text(MARKS.get(status, status), colour),
            age(entry.get("lastTransitionTime"), now),
            entry.get("reason", ""),
            entry.get("message", ""),
        )
    return table


def members_table(members: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One line for each node."""
    table = _table("node", "role", "state", "shards", "missing", "bytes", "left", "host", "zone")
    empty = True
    for member in members:
        empty = False
        missing = member.get("shardsMissing")
        fine = member.get("state") == "serving"
        table.add_row(
            str(member["ordinal"]),
            Text(member.get("role") or "-", "bold" if member.get("role") == "leader" else ""),
            Text(_state(member), "" if fine else "red"),
            str(member.get("shardsHeld", "")),
            Text("-" if missing is None else str(missing), "red" if missing else ""),
            amount(member.get("bytesHeld")),
            duration(member.get("secondsLeft")) if missing else "",
            member.get("node", ""),
            member.get("zone", ""),
        )
    return Text("no node was seen yet", "yellow") if empty else table


def _state(member: Mapping[str, Any]) -> str:
    state, detail = member.get("state") or "does not answer", member.get("detail")
    return f"{state}: {detail}" if detail else str(state)


def clusters_table(clusters: Iterable[Manifest], now: datetime.datetime) -> RenderableType:
    """All clusters, one line each."""
    table = _table("namespace", "cluster", "ready", "nodes", "layout", "missing", "version", "age")
    for cluster in clusters:
        status, metadata = cluster.get("status", {}), cluster["metadata"]
        ready = view.condition(cluster, "Ready")
        table.add_row(
            metadata.get("namespace", ""),
            metadata["name"],
            Text(MARKS[ready], COLOURS[ready]),
            status.get("nodesSummary", ""),
            status.get("layoutSummary", ""),
            str((status.get("shards") or {}).get("missing", "")),
            status.get("version", ""),
            age(metadata.get("creationTimestamp"), now),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    return table
