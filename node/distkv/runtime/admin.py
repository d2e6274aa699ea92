"""The owner's commands to one node: found, formed, identity, status.

Handlers take the parsed JSON body and answer one; they refuse with a DistKVError. An owner
other than the one that founded the cluster is refused with 403.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distkv.errors import BadRequest, NotFormed
from distkv.member.admission import check_owner, replace
from distkv.member.messages import Founding
from distkv.runtime.driver import Driver

Answer = dict[str, object]

FORMED_SECONDS = 5.0


class Admin:
    """`inline_max`: of this node's configuration, taken over by the cluster it founds."""

    def __init__(self, driver: Driver, inline_max: int) -> None:
        self._driver = driver
        self._member = driver.member
        self._inline_max = inline_max

    def identity(self) -> Answer:
        """GET /v1/admin/identity: who this data directory is."""
        identity = self._member.identity
        return {
            "cluster_id": identity.cluster.hex(),
            "ordinal": identity.ordinal,
            "incarnation": identity.incarnation,
            "boot": identity.boot,
            "founded": self._member.seat is not None,
        }

    def status(self) -> Answer:
        """GET /v1/admin/status: like /v1/status of the client door."""
        return self._driver.status()

    def found(self, body: Any) -> Answer:
        """POST /v1/admin/found {cluster_id, owner, layout: {data_shards, parity_shards},
        members: [[ordinal, incarnation], ...]}: once, to ordinal 0. Repeating it is harmless."""
        founding = _founding(_object(body), self._inline_max)
        self._member.found(founding)
        self._member.poke()
        return {"accepted": True}

    def formed(self, body: Any) -> Answer:
        """POST /v1/admin/formed {cluster_id, owner}: the owner recorded the formation."""
        body = _object(body)
        seat = self._member.seat
        if seat is None:
            raise NotFormed("this node does not know the founders yet")
        if _text(body, "cluster_id") != self._member.identity.cluster.hex():
            raise BadRequest("cluster_id is another cluster's")
        check_owner(seat, _text(body, "owner"))
        if not seat.machine.formed:
            seat.submit_formed(seat.kernel.now + FORMED_SECONDS)
            self._member.poke()
        return {"formed": seat.machine.formed}

    def replace(self, body: Any) -> Answer:
        """POST /v1/admin/replace {owner, ordinal, old, new}, to the leader: incarnation `new`
        takes the seat of `old`. Repeating it is harmless; `replaced` once it is so."""
        body = _object(body)
        seat = self._member.seat
        if seat is None:
            raise NotFormed("this node does not know the founders yet")
        done = replace(
            seat,
            _text(body, "owner"),
            _whole(body, "ordinal"),
            _whole(body, "old"),
            _whole(body, "new"),
        )
        return {"replaced": done}


def _object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


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
