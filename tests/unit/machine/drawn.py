"""Hypothesis strategies: logs over few keys, few sessions and little time."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from unit.machine.model import Basis, Check, Coded
from unit.machine.support import MEMBERS

from distkv.data.messages import Code
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

Entry = tuple[str, int, Any]
"""(kind, stamp, body) as the model reads it."""


def of(kind: Any, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`kind` of just these fields (st.builds would draw those with a default, too)."""
    return st.tuples(*fields).map(lambda drawn: kind(*drawn))


KEYS = [b"", b"a", b"b", b"b\0", b"c"]
keys = st.sampled_from(KEYS)
numbers = [b"7", b"-2", b"1.5", b"9223372036854775807", b"012", b"x", b""]
values = st.sampled_from([*numbers, b"y" * 12, b"y" * 13])
conditions = st.one_of(
    st.just(Condition()), of(Condition, st.sampled_from(Must), st.integers(0, 12))
)
expiries = st.one_of(
    st.just(Expiry()),
    of(lambda ms: Expiry(after_ms=ms), st.integers(-3, 40)),
    of(lambda ms: Expiry(at_ms=ms), st.integers(0, 300)),
    st.just(Expiry(keep=True)),
)
value_ids = st.one_of(
    *[of(ValueId, st.just(100), st.just(1), st.integers(0, 7))] * 4,
    of(ValueId, st.just(103), st.just(1), st.integers(0, 7)),
    of(ValueId, st.sampled_from([100, 101, 103]), st.integers(1, 2), st.integers(0, 7)),
)
holders = st.one_of(
    *[st.just(MEMBERS)] * 4,
    st.lists(st.sampled_from([*MEMBERS, Member(3, 203), Member(4, 203)]), max_size=6).map(tuple),
)
dispersed = of(
    c.Dispersed,
    value_ids,
    of(Code, st.integers(1, 3), st.just(5), st.just(1000)),
    st.sampled_from([9000, 9000, 9000, 5]),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from([*[Ballot(9, 0, 0)] * 6, Ballot(2, 0, 0)]),
    st.sampled_from([*[1] * 9, 2]),
    holders,
)
mutations = st.one_of(
    of(Put, keys, values, expiries, conditions, st.booleans()),
    of(Put, keys, values),
    of(Coded, keys, dispersed, conditions, expiries, st.booleans()),
    of(Coded, keys, dispersed),
    of(lambda *drawn: Coded(*drawn[:2], old=drawn[2]), keys, dispersed, value_ids),
    of(Delete, keys, conditions, st.booleans()),
    of(Expire, keys, expiries, st.sampled_from(ExpireMode)),
    of(Increment, keys, st.sampled_from([1, -3, 2**63 - 1])),
    of(IncrementFloat, keys, st.sampled_from([b"0.5", b"-1.25", b"junk", b"1e10"])),
    of(Append, keys, st.sampled_from([b"", b"1", b"zzzz"])),
    of(Check, keys, conditions),
    of(Basis, keys, st.integers(0, 12)),
    st.just(Flush()),
)
sessions = st.sampled_from(
    [
        *(node_session(100, 1), node_session(100, 1), node_session(103, 1), node_session(100, 2)),
        *(b"gateway-0001", b"gateway-0002"),
    ]
)
onces = st.sampled_from([b"\0Kidempoten1", b"\0Kidempoten2"])
commands = st.one_of(
    *[
        st.tuples(
            st.just("write"),
            sessions,
            st.integers(0, 30),
            st.integers(0, 4),
            st.just(False),
            st.lists(mutations, min_size=1, max_size=size),
        )
        for size in (1, 1, 1, 4)
    ],
    st.tuples(
        st.just("write"),
        onces,
        st.sampled_from([1, 1, 1, 2]),
        st.just(0),
        st.just(True),
        st.lists(mutations, min_size=1, max_size=2),
    ),
    st.tuples(
        st.just("boot"),
        st.sampled_from([101, 101, 103, 103, 103, 100]),
        st.sampled_from([0, 1, 3, 3]),
        st.integers(0, 2),
        st.sampled_from([1, 1, 2]),
    ),
    st.tuples(
        st.just("settled"), st.sampled_from([100, 103]), st.integers(1, 2), st.integers(0, 3)
    ),
    st.tuples(st.just("open"), st.sampled_from([b"gateway-0001", b"gateway-0002"])),
    st.tuples(st.just("tick")),
)
bodies = st.one_of(
    st.tuples(st.just("batch"), st.lists(commands, min_size=1, max_size=5)),
    st.tuples(st.just("batch"), st.lists(commands, min_size=1, max_size=5)),
    st.tuples(st.just("batch"), st.lists(commands, min_size=1, max_size=5)),
    st.tuples(st.just("barrier"), of(Ballot, st.sampled_from([1, 3]), st.just(0), st.just(0))),
    st.tuples(
        st.just("replace"),
        st.tuples(
            st.integers(3, 4), st.sampled_from([103, 104, 203]), st.sampled_from([103, 203, 303])
        ),
    ),
)
START: list[Entry] = [
    ("batch", 0, [("boot", 100, 0, 1, 1), ("boot", 103, 3, 1, 1), ("open", b"gateway-0001")])
]
"""The first entry of every log, after the one that forms the cluster."""


@st.composite
def logs(draw: st.DrawFn, max_size: int = 12) -> list[Entry]:
    """Entries whose stamps mostly grow."""
    stamp = 0
    entries = list(START)
    for kind, body in draw(st.lists(bodies, max_size=max_size)):
        stamp = max(0, stamp + draw(st.integers(-2, 25)))
        entries.append((kind, stamp, body))
    return entries


def packed(entry: Entry) -> bytes:
    """The entry as the machine reads it."""
    kind, stamp, body = entry
    if kind == "barrier":
        return c.entry_barrier(stamp, body)
    if kind == "replace":
        return c.entry_configuration(stamp, c.change_replace("owner-one", *body))
    return c.entry_batch(stamp, [_command(*command) for command in body])


def _command(name: str, *fields: Any) -> bytes:
    if name == "write":
        *head, drawn = fields
        return c.pack_write(*head, [_mutation(mutation) for mutation in drawn])
    packers: dict[str, Any] = {
        "boot": c.pack_boot,
        "settled": c.pack_settled,
        "open": c.pack_open,
        "tick": c.pack_tick,
    }
    result: bytes = packers[name](*fields)
    return result


def _mutation(mutation: Any) -> c.WireMutation:
    if isinstance(mutation, Check):
        return c.wire_check(*mutation)
    if isinstance(mutation, Basis):
        return c.wire_basis(*mutation)
    if isinstance(mutation, Coded):
        if mutation.old is not None:
            return c.wire_restripe(mutation.key, mutation.old, mutation.value)
        put = Put(mutation.key, b"", mutation.expiry, mutation.condition, mutation.previous)
        return c.wire_mutations([put], {0: mutation.value})[0]
    return c.wire_mutations([mutation])[0]
