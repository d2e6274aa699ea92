"""A naive model of the state machine: plain dictionaries, whole copies, no rows.

Written from the rules (protocol sections 2, 4, 5, 8), not from the code, so that the two
can disagree. `Model.run(entry)` takes the same entries as the machine, before packing.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from distkv.ids import Ballot, Member, ValueId, node_session
from distkv.machine import commands as c
from distkv.operations import (
    Append,
    Condition,
    Delete,
    Expire,
    ExpireMode,
    Expiry,
    Flush,
    Increment,
    IncrementFloat,
    Must,
    Put,
)

INLINE_MAX = 12
IDLE = 60
LIFE = 90
F = 2


class Coded(NamedTuple):
    """A put of a dispersed value, or (`old` set) a re-striping."""

    key: bytes
    value: c.Dispersed
    condition: Condition = Condition()
    expiry: Expiry = Expiry()
    previous: bool = False
    old: ValueId | None = None


class Check(NamedTuple):
    key: bytes
    condition: Condition


class Basis(NamedTuple):
    key: bytes
    version: int


class Item(NamedTuple):
    """What a key has: `value` is bytes, or what was dispersed."""

    version: int
    expires: int | None
    value: bytes | c.Dispersed


class Stop(Exception):
    """(kind, detail) of a write without effect."""


class Model:
    def __init__(self, members: tuple[Member, ...]) -> None:
        self.time = 0
        self.revision = 0
        self.barrier = Ballot(0, 0, 0)
        self.members = list(members)
        self.removed: set[int] = set()
        self.boots: dict[int, tuple[int, int]] = {}
        self.starts: dict[int, int] = {}
        self.sessions: dict[bytes, dict[str, Any]] = {}
        self.opened: set[bytes] = set()
        self.once: dict[bytes, tuple[int, int, tuple[str, Any]]] = {}
        self.items: dict[bytes, Item] = {}

    # -- entries -------------------------------------------------------------------------

    def run(self, entry: tuple[str, int, Any]) -> list[tuple[bytes, int, str, Any]]:
        """Outcomes: (session, sequence, kind, detail)."""
        kind, stamp, body = entry
        self.time = max(self.time, stamp)
        outcomes = []
        if kind == "batch":
            for name, *fields in body:
                outcome = getattr(self, name)(*fields)
                if outcome is not None:
                    outcomes.append(outcome)
        elif kind == "barrier":
            self.barrier = max(self.barrier, body)
        elif kind == "replace":
            self.replace(*body)
        return outcomes

    def replace(self, ordinal: int, old: int, new: int) -> None:
        taken = {m.incarnation for m in self.members}
        if self.members[ordinal].incarnation == old and new not in taken | self.removed:
            self.members[ordinal] = Member(ordinal, new)
            self.removed.add(old)
            if old in self.boots:
                self.sessions.pop(node_session(old, self.boots.pop(old)[0]), None)

    def boot(self, incarnation: int, ordinal: int, boot: int, start: int) -> Any:
        session = node_session(incarnation, boot)
        if Member(ordinal, incarnation) not in self.members:
            return (session, 0, "REFUSED", "coordinator")
        known = self.boots.get(incarnation, (-1, 0))[0]
        if boot < known or (boot == known and self.starts[incarnation] != start):
            return (session, 0, "REFUSED", "boot")
        if boot > known:
            self.sessions.pop(node_session(incarnation, max(known, 0)), None)
            self.boots[incarnation] = (boot, 0)
            self.starts[incarnation] = start
            self.sessions[session] = {"low": 0, "results": {}, "last": None}
        return (session, 0, "APPLIED", [True])

    def settled(self, incarnation: int, boot: int, counter: int) -> None:
        known = self.boots.get(incarnation)
        if known is not None and known[0] == boot:
            self.boots[incarnation] = (boot, max(known[1], counter))

    def open(self, session: bytes) -> Any:
        if self.alive(session) is None:
            if session in self.opened:  # it has ended: its name does not come back
                return (session, 0, "UNKNOWN_SESSION", "it has ended")
            self.opened.add(session)
            self.sessions[session] = {"low": 0, "results": {}, "last": self.time}
        return (session, 0, "APPLIED", [True])

    def tick(self) -> None:
        for key in [k for k, item in self.items.items() if not self.lives(item)]:
            self.revision += 1
            del self.items[key]

    def alive(self, session: bytes) -> dict[str, Any] | None:
        found = self.sessions.get(session)
        if found is None:
            return None
        if found["last"] is not None:
            if found["last"] + IDLE <= self.time:
                del self.sessions[session]
                return None
            found["last"] = self.time
        return found

    def write(
        self, session: bytes, sequence: int, low: int, implicit: bool, mutations: list[Any]
    ) -> Any:
        if implicit:
            return (session, sequence, *self.write_once(session, sequence, mutations))
        found = self.alive(session)
        if found is None:
            return (session, sequence, "UNKNOWN_SESSION", None)
        found["low"] = max(found["low"], min(low, sequence))
        if sequence < found["low"]:
            return (session, sequence, "UNKNOWN_SESSION", None)
        if sequence not in found["results"]:
            kind, detail = self.execute(mutations)
            if kind in ("REFUSED", "NEEDS_VALUE"):
                return (session, sequence, kind, detail)
            found["results"][sequence] = (kind, detail)
        return (session, sequence, *found["results"][sequence])

    def write_once(self, session: bytes, sequence: int, mutations: list[Any]) -> tuple[str, Any]:
        if session in self.once and self.once[session][0] > self.time:
            _, known, result = self.once[session]
            return result if known == sequence else ("UNKNOWN_SESSION", None)
        kind, detail = self.execute(mutations)
        if kind not in ("REFUSED", "NEEDS_VALUE"):
            self.once[session] = (self.time + LIFE, sequence, (kind, detail))
        return kind, detail

    # -- writes --------------------------------------------------------------------------

    def lives(self, item: Item) -> bool:
        return item.expires is None or item.expires > self.time

    def visible(self) -> dict[bytes, Item]:
        return {key: item for key, item in self.items.items() if self.lives(item)}

    def execute(self, mutations: list[Any]) -> tuple[str, Any]:
        named = [m.value for m in mutations if isinstance(m, Coded)]
        for position, value in enumerate(named):
            reason = self.refusal(value, [v.value_id for v in named[:position]])
            if reason:
                return "REFUSED", reason
        for index, mutation in enumerate(mutations):
            if not self.meets(getattr(mutation, "condition", Condition()), mutation):
                return "CONDITION", index
        items, revision = dict(self.items), self.revision
        results = []
        for index, mutation in enumerate(mutations):
            try:
                results.append(getattr(self, "do_" + type(mutation).__name__.lower())(mutation))
            except Stop as stop:
                self.items, self.revision = items, revision
                kind, detail = stop.args
                return kind, index if detail is None else detail
        return "APPLIED", results

    def refusal(self, value: c.Dispersed, earlier: list[ValueId]) -> str:
        incarnation, boot, counter = value.value_id
        if value.stamp < self.barrier:
            return "barrier"
        if incarnation not in self.boots:
            return "coordinator"
        if self.boots[incarnation][0] != boot:
            return "boot"
        if counter < self.boots[incarnation][1]:
            return "settled"
        if value.epoch != 1:
            return "epoch"
        if len(set(value.holders) & set(self.members)) < value.code.data_shards + F:
            return "holders"
        # Rows count until a tick removes them.
        used = [i.value.value_id for i in self.items.values() if isinstance(i.value, c.Dispersed)]
        return "settled" if value.value_id in used + earlier else ""

    def meets(self, condition: Condition, mutation: Any) -> bool:
        if condition.must == Must.ANYTHING:
            return True
        item = self.visible().get(mutation.key)
        if condition.must == Must.BE_ABSENT:
            return item is None
        if condition.must == Must.BE_PRESENT:
            return item is not None
        has = item is not None and item.version == condition.version
        return has == (condition.must == Must.HAVE_VERSION)

    def set(self, key: bytes, expires: int | None, value: bytes | c.Dispersed) -> int:
        self.revision += 1
        self.items.pop(key, None)
        item = Item(self.revision, expires, value)
        if not self.lives(item):
            return 0
        self.items[key] = item
        return self.revision

    def expires(self, expiry: Expiry, old: Item | None) -> int | None:
        if expiry.keep:
            return old.expires if old else None
        if expiry.at_ms is not None:
            return max(0, expiry.at_ms)
        return None if expiry.after_ms is None else max(0, self.time + expiry.after_ms)

    def do_put(self, put: Put) -> Any:
        old = self.visible().get(put.key)
        assert isinstance(put.value, bytes)
        if len(put.value) > INLINE_MAX:
            raise Stop("FAILED", "inline_max")
        version = self.set(put.key, self.expires(put.expiry, old), put.value)
        return (version, old is not None, old if put.previous else None)

    def do_coded(self, put: Coded) -> Any:
        old = self.visible().get(put.key)
        if put.old is not None:
            if old is None or not isinstance(old.value, c.Dispersed):
                raise Stop("CONDITION", None)
            same = (old.value.length, old.value.checksum) == (put.value.length, put.value.checksum)
            if old.value.value_id != put.old or not same:
                raise Stop("CONDITION", None)
            self.items[put.key] = old._replace(value=put.value)
            return old.version
        version = self.set(put.key, self.expires(put.expiry, old), put.value)
        return (version, old is not None, old if put.previous else None)

    def do_check(self, check: Check) -> Any:
        return True

    def do_basis(self, basis: Basis) -> Any:
        old = self.visible().get(basis.key)
        if (old.version if old else 0) != basis.version:
            raise Stop("NEEDS_VALUE", None)
        return True

    def do_delete(self, delete: Delete) -> Any:
        old = self.visible().get(delete.key)
        self.items.pop(delete.key, None)
        self.revision += old is not None
        return (0, old is not None, old if delete.previous else None)

    def do_expire(self, expire: Expire) -> Any:
        old = self.visible().get(expire.key)
        if old is None or expire.expiry.keep:
            return False
        never = 2**60
        then = self.expires(expire.expiry, old)
        was, will = old.expires or never, never if then is None else then
        allowed = {
            ExpireMode.ALWAYS: True,
            ExpireMode.ONLY_WITHOUT: was == never,
            ExpireMode.ONLY_WITH: was != never,
            ExpireMode.ONLY_LATER: will > was,
            ExpireMode.ONLY_SOONER: will < was,
        }[expire.mode]
        if not allowed or was == will == never:
            return False
        self.set(expire.key, then, old.value)
        return True

    def number(self, old: Item | None) -> bytes:
        if old is None:
            return b"0"
        if isinstance(old.value, c.Dispersed):
            raise Stop("NEEDS_VALUE" if old.value.length <= 20 else "FAILED", None)
        return old.value

    def do_increment(self, increment: Increment) -> Any:
        old = self.visible().get(increment.key)
        text = self.number(old).decode()
        try:
            total = int(text) + increment.delta
        except ValueError:
            raise Stop("FAILED", "") from None
        if str(int(text)) != text or not -(2**63) <= total < 2**63:
            raise Stop("FAILED", "")
        self.replace_inline(increment.key, old, str(total).encode())
        return total

    def do_incrementfloat(self, increment: IncrementFloat) -> Any:
        old = self.visible().get(increment.key)
        try:
            total = Fraction(self.number(old).decode()) + Fraction(increment.delta.decode())
        except ValueError:
            raise Stop("FAILED", "") from None
        thousandths = total * 1000
        assert thousandths.denominator == 1, "the values drawn have at most three places"
        sign = "-" if thousandths < 0 else ""
        whole, rest = divmod(abs(int(thousandths)), 1000)
        text = f"{sign}{whole}.{rest:03}".rstrip("0").rstrip(".").encode()
        if len(text) > INLINE_MAX:
            raise Stop("FAILED", "")
        self.replace_inline(increment.key, old, text)
        return text

    def do_append(self, append: Append) -> Any:
        old = self.visible().get(append.key)
        value = old.value if old else b""
        if isinstance(value, c.Dispersed) or len(value + append.piece) > INLINE_MAX:
            raise Stop("NEEDS_VALUE", None)
        self.replace_inline(append.key, old, value + append.piece)
        return len(value + append.piece)

    def replace_inline(self, key: bytes, old: Item | None, value: bytes) -> None:
        self.set(key, old.expires if old else None, value)

    def do_flush(self, flush: Flush) -> Any:
        removed = len(self.visible())
        self.items.clear()
        self.revision += removed
        return removed
