"""Numbers of a status, in words."""

from __future__ import annotations

from typing import Any


def text(value: object) -> str:
    """A dash for what is not known."""
    return "-" if value is None else str(value)


def size(count: int | None) -> str:
    """Bytes."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Roughly."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def missing_line(whole: dict[str, Any], nodes: list[dict[str, Any]]) -> str:
    """Shards missing and corrupt; where a node is not heard, only "at least"."""
    parts = []
    for name, field in (("missing", "shards_missing"), ("corrupt", "shards_corrupt")):
        if whole[field] is not None:
            parts.append(f"{name} {whole[field]}")
            continue
        known = [node[field] for node in nodes if node[field] is not None]
        parts.append(f"{name} at least {sum(known)}" if known else f"{name} unknown")
    if whole["under_coded"]:
        parts.append(f"{whole['under_coded']} values coded for fewer nodes or another layout")
    silent = [str(node["ordinal"]) for node in nodes if node["shards_missing"] is None]
    hidden = f" (not known of node {', '.join(silent)})" if silent else ""
    return f"shards {', '.join(parts)}{hidden}"


def repair_line(whole: dict[str, Any]) -> str:
    """What repair does in the whole cluster; empty if it has nothing to do."""
    left, rate = whole["repair_bytes_left"], whole["repair_bytes_per_second"]
    if not left:
        return ""
    parts = [f"{size(left)} to rebuild"]
    if rate:
        parts.append(f"{size(rate)}/s")
    if whole["repair_seconds_left"]:
        parts.append(f"about {duration(whole['repair_seconds_left'])} left")
    return f"; {', '.join(parts)}"


def survival_line(survives: dict[str, int | None]) -> str:
    """What more can fail, as a sentence."""
    available, durable = survives["available"], survives["durable"]
    returning = survives["durable_if_silent_return"]
    if available is None and durable is None:
        return "how much more may fail is not known: no node sees a quorum and has counted yet"
    if available is None:
        stop = "how many nodes may stop is not known yet"
    elif available == 0:
        stop = "no further node may stop"
    else:
        stop = f"any {_counted(available, 'further node')} may stop and all goes on"
    if durable is None:
        lose = "how many disks may be lost is not known yet"
    elif durable == 0:
        lose = "no further disk may be lost for certain"
    else:
        lose = f"any {_counted(durable, 'further disk')} may be lost without losing a value"
    if durable is not None and returning is not None and returning > durable:
        lose += f" ({returning} if the nodes that do not answer still have theirs)"
    if available is not None and durable is not None and durable > available:
        # Who reads a number of disks does not think of the quorum that goes with them, or of
        # the room that the others have.
        lose += f"; past {available} at once" if available else ", but"
        lose += " requests are refused then"
    return f"{stop}; {lose}"


def _counted(count: int, what: str) -> str:
    return f"one {what}" if count == 1 else f"{count} {what}s"
