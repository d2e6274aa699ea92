"""The owner's commands to one node: found, formed, replace, layout, identity, status.

Handlers take the parsed JSON body and answer one; they refuse with a DistKVError. An owner
other than the one that founded the cluster is refused with 403.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distkv.errors import BadRequest, NotFormed
from distkv.ids import Member
from distkv.member import layouts
from distkv.member.admission import replace
from distkv.member.health import lost_count
from distkv.member.messages import Founding
from distkv.member.soundness import check_owner
from distkv.runtime.driver import Driver

Answer = dict[str, object]

FORMED_SECONDS = 5.0
LOST_DEFAULT = 1000
LOST_MAX = 100_000


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

    def lost(self, query: Mapping[str, str]) -> Answer:
        """GET /v1/admin/lost[?limit=N]: values of which too few shards are left, as this node
        knows: {count, lost: [{key, key_hex, value_id, shards, data_shards, since_ms}, ...]}."""
        seat = self._member.seat
        limit = _limit(query.get("limit", str(LOST_DEFAULT)))
        listed = [] if seat is None else seat.data.losses.listing(limit)
        return {
            "count": 0 if seat is None else lost_count(seat),
            "lost": [
                {
                    "key": lost.key.decode("utf-8", "replace"),
                    "key_hex": lost.key.hex(),
                    "value_id": list(lost.value_id),
                    "shards": lost.shards,
                    "data_shards": lost.data_shards,
                    "since_ms": lost.since_ms,
                }
                for lost in listed
            ],
        }

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

    def change_layout(self, body: Any) -> Answer:
        """POST /v1/admin/layout {owner, data_shards, parity_shards, members: [[ordinal,
        incarnation], ...], again: false, epoch: null}, to the leader: a new layout, named by all
        its members.

        Answers {"epoch": number, "done": bool}: `epoch` is the newest applied one, `done` says
        that it is the wanted layout already; else it was proposed: repeat the request (which is
        harmless) or look with GET until `epoch` is one more. Records are then striped anew in
        the background, and each old epoch retires by itself once no record names it; until
        then its surplus nodes ("leaving") must stay. New members must run first, with empty
        directories at the next ordinals: they show up under "waiting" and must be caught up.
        To go back half-way, ask for the old numbers; `again` begins an epoch even if the newest
        layout has these numbers, which ends a request that was answered by nobody: without it
        that one may still come true (an epoch's number is used once). `epoch`: the newest one
        that the caller saw; the request is refused if there is a newer one when it arrives, so
        one that is late does not come true when its sender wants something else.

        Refused, and nothing changed: 400 `bad_request` names the field (a member that does not
        hold its ordinal: replace it first; k + m that does not match members; a removed
        incarnation); 403 `foreign_owner`; 409 `not_leader` names the leader; 409 `not_yet`
        says what to wait for (another epoch than the caller saw, a joiner that lags, too few
        members up, shards missing beyond what a layout bears, a full disk, another change
        under way, leadership handed over); 503 `not_formed`.
        """
        body = _object(body)
        seat = self._member.seat
        if seat is None:
            raise NotFormed("this node does not know the founders yet")
        members = tuple(Member(*pair) for pair in _pairs(body))
        k, m = _whole(body, "data_shards"), _whole(body, "parity_shards")
        again = body.get("again", False)
        if type(again) is not bool:
            raise BadRequest("again must be true or false")
        epoch = None if body.get("epoch") is None else _whole(body, "epoch")
        done = layouts.change(seat, _text(body, "owner"), k, m, members, again, epoch)
        return {"epoch": seat.machine.membership.epoch, "done": done}

    def layout(self) -> Answer:
        """GET /v1/admin/layout, at any node: how far a change of layout is.

        epoch, data_shards, parity_shards, members ([[ordinal, incarnation], ...]): the newest
        layout; owner; leader (ordinal or null), leads (this node, by its own word: its picture
        is the newest); changing: an older epoch lives; epochs: all
        that live, each with records and bytes of the values that it still names;
        records_left, bytes_left: in old epochs; failures: f as it may be claimed now,
        failures_wanted: f of the newest layout; leaving: members that only old epochs seat;
        waiting: nodes that no layout seats ({ordinal, incarnation, applied, caught_up,
        removed}; removed: it has left for good).
        """
        seat = self._member.seat
        if seat is None:
            raise NotFormed("this node does not know the founders yet")
        return layouts.progress(seat)


def _limit(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= LOST_MAX:
        raise BadRequest(f"limit must be a whole number from 1 to {LOST_MAX}, not {text[:20]!r}")
    return int(text)


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


def _pairs(body: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    members = body.get("members")
    if not isinstance(members, list) or not all(
        isinstance(m, list) and len(m) == 2 and all(type(number) is int for number in m)
        for m in members
    ):
        raise BadRequest("members must be a list of [ordinal, incarnation]")
    return tuple((ordinal, incarnation) for ordinal, incarnation in members)


def _founding(body: Mapping[str, Any], inline_max: int) -> Founding:
    try:
        cluster = bytes.fromhex(_text(body, "cluster_id"))
    except ValueError as error:
        raise BadRequest("cluster_id must be 32 hexadecimal digits") from error
    layout = body.get("layout")
    if not isinstance(layout, dict):
        raise BadRequest("layout must be an object with data_shards and parity_shards")
    return Founding(
        cluster,
        _text(body, "owner"),
        _whole(layout, "data_shards"),
        _whole(layout, "parity_shards"),
        _pairs(body),
        inline_max,
    )
