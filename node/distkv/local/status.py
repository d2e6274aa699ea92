"""What `distkv local status` shows: the processes, and what each node says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from distkv.local.ask import Answer, ask
from distkv.local.directory import Directory, Identity
from distkv.local.ports import HOST, PortPlan
from distkv.local.processes import Child
from distkv.local.replacing import Replacement, admit_command

NODE_FIELDS = ("role", "state", "detail", "incarnation", "applied", "leader", "formed", "serving")
SHARD_FIELDS = (
    *("shards", "shards_bytes", "shards_missing", "shards_corrupt", "keys", "disk_full"),
    *("repair_bytes_done", "repair_bytes_left", "repair_bytes_per_second", "repair_seconds_left"),
)
CLUSTER_FIELDS = (
    *("shards_missing", "shards_corrupt", "values_lost"),
    *("under_coded", "under_coded_bytes", "under_coded_seconds_left"),
    *("repair_bytes_done", "repair_bytes_left", "repair_bytes_per_second", "repair_seconds_left"),
)


async def gather(
    directory: Directory,
    identity: Identity,
    children: list[Child],
    stage: Callable[[int], Replacement | None],
) -> dict[str, Any]:
    """Status of the whole cluster as plain data (documented in `distkv local status --help`)."""
    plan = PortPlan(identity.port_base, len(children) - 1)
    answers = await asyncio.gather(
        *(
            ask(plan.node(i).http, "GET", "/v1/status") if child.state == "running" else _absent()
            for i, child in enumerate(children[:-1])
        )
    )
    nodes = [
        _node(plan, i, child, answer) | _replacement(directory, i, answer, stage(i))
        for i, (child, answer) in enumerate(zip(children[:-1], answers, strict=True))
    ]
    gateway = children[-1]
    ready = gateway.state == "running" and (await ask(plan.gateway_http, "GET", "/readyz")).ok
    said = [answer.body for answer in answers if answer.ok and isinstance(answer.body, dict)]
    return {
        "name": identity.name,
        "directory": str(directory.path),
        "cluster_id": identity.cluster_id,
        "owner": directory.ownership().owner,
        "formed": directory.ownership().formed and any(body.get("formed") for body in said),
        "data_shards": identity.data_shards,
        "parity_shards": identity.parity_shards,
        "leader": leader_of(said),
        **_whole(said),
        "suspicions": suspicions(said),
        "ready": ready,
        "nodes": nodes,
        "gateway": _process(gateway)
        | {
            "ready": ready,
            "state": "ready" if ready else _state(gateway, "not ready"),
            "resp": f"{HOST}:{plan.gateway_resp}",
            "http": f"{HOST}:{plan.gateway_http}",
        },
    }


async def _absent() -> Answer:
    return Answer(0, "not running")


def leader_of(said: list[dict[str, Any]]) -> int | None:
    """The ordinal most nodes follow."""
    votes = [body["leader"] for body in said if body.get("leader") is not None]
    return max(sorted(set(votes)), key=votes.count) if votes else None


def _process(child: Child) -> dict[str, Any]:
    return {"process": child.state, "pid": child.pid, "exit_code": child.exit_code}


def _node(plan: PortPlan, ordinal: int, child: Child, answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"ordinal": ordinal} | _process(child)
    ports = plan.node(ordinal)._asdict()
    found["ports"] = ports
    body = answer.body if answer.ok and isinstance(answer.body, dict) else {}
    for field in (*NODE_FIELDS, *SHARD_FIELDS):
        found[field] = body.get(field)
    if not body:
        found["state"] = _state(child, "does not answer")
    return found


def _state(child: Child, running: str) -> str:
    """Of a process that does not say it itself."""
    states = {"running": running, "stopped": "stopped by a signal", "down": "taken down"}
    return states.get(child.state, f"ended by itself (exit code {child.exit_code})")


def _replacement(
    directory: Directory, ordinal: int, answer: Answer, stage: Replacement | None
) -> dict[str, Any]:
    """How far the replacement of a wiped node is, and what to do if none is under way."""
    if stage is not None:
        return {"replacement": stage._asdict()}
    found: dict[str, Any] = {"replacement": None}
    seats = len(answer.body["layout"]["members"]) if answer.ok and "layout" in answer.body else 0
    if ordinal < seats and answer.body["state"] == "waiting to be admitted":
        found["detail"] = (
            "its directory is new, and `distkv local wipe` did not make it so: an empty directory "
            "may be a disk that is not mounted. If the old one is really lost: "
            + admit_command(directory, ordinal)
        )
    return found


def best_view(said: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The cluster as the node sees it that knows most: one with a quorum, the leader first."""
    views = [
        (
            body["cluster_view"]["survives"]["available"] is not None,
            body.get("role") == "leader",
            body.get("applied", 0),
            -body["ordinal"],
            body["cluster_view"],
        )
        for body in said
        if "cluster_view" in body
    ]
    return max(views, key=lambda view: view[:4])[4] if views else None


def _whole(said: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the whole cluster; null where it is not known."""
    view = best_view(said) or {}
    survives = view.get("survives", {})
    names = ("available", "durable", "durable_if_silent_return")
    return {field: view.get(field) for field in CLUSTER_FIELDS} | {
        "survives": {name: survives.get(name) for name in names}
    }


def suspicions(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All suspicions, each with the node that has it."""
    return [
        {"node": body["ordinal"]} | suspicion
        for body in said
        for suspicion in body.get("suspicions", ())
    ]
