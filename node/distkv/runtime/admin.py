"""The owner's commands to one node: found, formed, identity, status.

Handlers take the parsed JSON body and answer (HTTP status, JSON body). An owner other than
the one that founded the cluster is refused with 403.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distkv.errors import BadRequest
from distkv.member.admission import replace
from distkv.member.messages import Founding
from distkv.runtime.driver import Driver

Answer = tuple[int, dict[str, object]]

FORMED_SECONDS = 5.0


class Admin:
    """`inline_max`: of this node's configuration, taken over by the cluster it founds."""

    def __init__(self, driver: Driver, inline_max: int) -> None:
        self._driver = driver
        self._member = driver.member
        self._inline_max = inline_max

    def identity(self, body: Mapping[str, Any]) -> Answer:
        """GET /v1/admin/identity: who this data directory is."""
        identity = self._member.identity
        return 200, {
            "cluster_id": identity.cluster.hex(),
            "ordinal": identity.ordinal,
            "incarnation": identity.incarnation,
            "boot": identity.boot,
            "founded": self._member.seat is not None,
        }

    def status(self, body: Mapping[str, Any]) -> Answer:
        """GET /v1/admin/status: like /v1/status of the client door."""
        return 200, self._driver.status()

    def found(self, body: Mapping[str, Any]) -> Answer:
        """POST /v1/admin/found {cluster_id, owner, layout: {data_shards, parity_shards},
        members: [[ordinal, incarnation], ...]}: once, to ordinal 0. Repeating it is harmless."""
        founding = _founding(body, self._inline_max)
        self._member.found(founding)
        self._driver.wake()
        return 202, {"accepted": True}

    def formed(self, body: Mapping[str, Any]) -> Answer:
        """POST /v1/admin/formed {cluster_id, owner}: the owner recorded the formation."""
        seat = self._member.seat
        if seat is None:
            return 503, _problem("not_formed", "this node does not know the founders yet", True)
        if _text(body, "cluster_id") != self._member.identity.cluster.hex():
            return 403, _problem("foreign_cluster", "cluster_id is another cluster's", False)
        if _text(body, "owner") != seat.machine.membership.owner:
            reason = "this cluster has another owner; its commands alone are taken"
            return 403, _problem("foreign_owner", reason, False)
        if seat.machine.formed:
            return 200, {"formed": True}
        seat.submit_formed(seat.kernel.now + FORMED_SECONDS)
        self._driver.wake()
        return 202, {"formed": False}


    def replace(self, body: Mapping[str, Any]) -> Answer:
        """POST /v1/admin/replace {owner, ordinal, old, new}, to the leader: incarnation `new`
        takes the seat of `old`. Repeating it is harmless; 200 once it is so."""
        seat = self._member.seat
        if seat is None:
            return 503, _problem("not_formed", "this node does not know the founders yet", True)
        done = replace(
            seat,
            _text(body, "owner"),
            _whole(body, "ordinal"),
            _whole(body, "old"),
            _whole(body, "new"),
        )
        return (200 if done else 202), {"replaced": done}


def _problem(code: str, message: str, retry: bool) -> dict[str, object]:
    return {"code": code, "message": message, "applied": "no", "retry": retry}


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise BadRequest(f"{field} must be text")
    return value


def _whole(body: Mapping[str, Any], field: str) -> int:
    value = body.get(field)
    if type(value) is not int:
        raise BadRequest(f"{field} must be a whole number")
    return value


def _founding(body: Mapping[str, Any], inline_max: int) -> Founding:
    try:
        cluster = bytes.fromhex(_text(body, "cluster_id"))
    except ValueError as error:
        raise BadRequest("cluster_id must be 32 hexadecimal digits") from error
    layout = body.get("layout")
    if not isinstance(layout, dict):
        raise BadRequest("layout must be an object with data_shards and parity_shards")
    members = body.get("members")
    if not isinstance(members, list) or not all(
        isinstance(m, list) and len(m) == 2 and all(type(number) is int for number in m)
        for m in members
    ):
        raise BadRequest("members must be a list of [ordinal, incarnation]")
    return Founding(
        cluster,
        _text(body, "owner"),
        _whole(layout, "data_shards"),
        _whole(layout, "parity_shards"),
        tuple((ordinal, incarnation) for ordinal, incarnation in members),
        inline_max,
    )
