"""Building log entries and the commands inside them (disk and wire format).

Entry: 1 byte kind, 8 bytes stamp (big endian, ms of the leader's clock), body.

| kind | entry         | body                                             |
|------|---------------|--------------------------------------------------|
| 0    | noop          | empty                                            |
| 1    | batch         | msgpack array of bin, each one packed command    |
| 2    | barrier       | msgpack (round, ordinal, incarnation)            |
| 3    | configuration | msgpack (change, owner, ...), alone in its slot  |

Commands and mutations are msgpack arrays whose first item is their kind; `machine.parsing`
is the exact grammar. Numbers are disk format: they are never reused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
from google_crc32c import value as crc32c

from distkv.core.configuration import Configuration
from distkv.data.messages import Code
from distkv.ids import Ballot, Member, ValueId
from distkv.operations import (
    Append,
    Check,
    Condition,
    Delete,
    Expire,
    Expiry,
    Flush,
    Increment,
    IncrementFloat,
    Mutation,
    Put,
)

NOOP, BATCH, BARRIER, CONFIGURATION = range(4)
"""Kinds of entries."""

WRITE, BOOT, SETTLED, OPEN, TICK, FORMED = range(1, 7)
"""Kinds of commands."""

PUT_INLINE, PUT_CODED, DELETE, EXPIRE, INCREMENT = range(1, 6)
INCREMENT_FLOAT, APPEND, FLUSH, RESTRIPE, CHECK, BASIS = range(6, 12)
"""Kinds of mutations."""

EXPIRY_NEVER, EXPIRY_AT, EXPIRY_AFTER, EXPIRY_KEEP = range(4)
"""Kinds of expiry: the next field is ms since 1970, or ms from the entry's log time."""

REPLACE, LAYOUT, RETIRE, OWNER = range(1, 5)
"""Kinds of configuration changes."""

NUMBER_END = 2**63
"""Versions, sequence numbers, counters and incarnations are below."""
TIME_MAX = 2**52 - 1
"""Largest time in ms; sums of two still fit everywhere."""
KEY_BYTES_MAX = 4096
MUTATIONS_MAX = 16384
"""Mutations of one command (the size of an entry is limited by its proposer)."""

_HEAD = struct.Struct(">BQ")
HEAD_BYTES = _HEAD.size
_pack = msgpack.Packer().pack

WireMutation = tuple[Any, ...]


class UnknownEntry(Exception):
    """The log holds something this version does not know: the node must halt.

    Skipping it would make this node's state differ from the others'.
    """


class Dispersed(NamedTuple):
    """A value whose shards are durable at `holders`: what a coded put names.

    `stamp`: ballot under which it was dispersed; `checksum`: CRC-32C of the whole value.
    """

    value_id: ValueId
    code: Code
    length: int
    checksum: int
    stamp: Ballot
    epoch: int
    holders: tuple[Member, ...]


# -- entries -----------------------------------------------------------------------------


def entry_noop(stamp_ms: int = 0) -> bytes:
    """An entry that only moves log time."""
    return _HEAD.pack(NOOP, stamp_ms)


def entry_batch(stamp_ms: int, commands: Sequence[bytes]) -> bytes:
    """Commands to apply in this order."""
    return _HEAD.pack(BATCH, stamp_ms) + _packed(commands)


def entry_barrier(stamp_ms: int, ballot: Ballot) -> bytes:
    """A new leader's first entry: no put dispersed under a lower ballot counts after it."""
    return _HEAD.pack(BARRIER, stamp_ms) + _packed(tuple(ballot))


def entry_configuration(stamp_ms: int, body: bytes) -> bytes:
    """`body`: one of the `change_...` functions."""
    return _HEAD.pack(CONFIGURATION, stamp_ms) + body


def entry_kind(entry: bytes) -> int:
    """NOOP, BATCH, BARRIER or CONFIGURATION. Raises UnknownEntry."""
    if len(entry) < HEAD_BYTES or entry[0] > CONFIGURATION:
        raise UnknownEntry(
            f"a log entry of {len(entry)} bytes starts with {entry[:1].hex()!r}: this version "
            "knows the kinds 0 to 3; it was written by a newer version or is damaged"
        )
    return entry[0]


def entry_stamp(entry: bytes) -> int:
    """The leader's clock in ms when it proposed the entry. Raises UnknownEntry."""
    entry_kind(entry)
    stamp: int = _HEAD.unpack_from(entry)[1]
    if stamp > TIME_MAX:
        raise UnknownEntry(f"a log entry carries the impossible time {stamp} ms")
    return stamp


def change_replace(owner: str, ordinal: int, old: int, new: int) -> bytes:
    """Seat `ordinal`: incarnation `old` goes for ever, `new` votes."""
    return _packed((REPLACE, owner, ordinal, old, new))


def change_layout(owner: str, configuration: Configuration) -> bytes:
    """A new write epoch: `configuration.epoch` is the present one plus 1."""
    epoch, k, m, members = configuration
    return _packed((LAYOUT, owner, epoch, k, m, tuple(i for _, i in members)))


def change_retire(owner: str, epoch: int) -> bytes:
    """Forget an epoch that no record names; its extra members leave."""
    return _packed((RETIRE, owner, epoch))


def change_owner(owner: str, new_owner: str) -> bytes:
    """Hand the cluster over to another owner."""
    return _packed((OWNER, owner, new_owner))


# -- commands ----------------------------------------------------------------------------


def pack_write(
    session: bytes,
    sequence: int,
    low: int,
    implicit: bool,
    mutations: Iterable[WireMutation],
) -> bytes:
    """All mutations or none. `low`: sequences below it were answered.

    `implicit`: the session opens with this command and lives for one sequence number
    (idempotency keys).
    """
    return _packed((WRITE, session, sequence, low, implicit, tuple(mutations)))


def pack_boot(incarnation: int, ordinal: int, boot: int, start: int) -> bytes:
    """A member started: values and the session of its earlier boots are over.

    `start`: a random number of this very process. Without it a directory restored from a snapshot,
    which counts its boots anew, would share number and session of a process that was.
    """
    return _packed((BOOT, incarnation, ordinal, boot, start))


def pack_settled(incarnation: int, boot: int, counter: int) -> bytes:
    """All values of this boot with a counter below `counter` are decided."""
    return _packed((SETTLED, incarnation, boot, counter))


def pack_open(session: bytes) -> bytes:
    """Open a gateway's session. Its outcome has sequence 0."""
    return _packed((OPEN, session))


def pack_tick() -> bytes:
    """Remove what is due at the entry's log time."""
    return _packed((TICK,))


def pack_formed(cluster: bytes, owner: str) -> bytes:
    """The owner recorded that the cluster is formed: accept client writes."""
    return _packed((FORMED, cluster, owner))


# -- mutations ---------------------------------------------------------------------------


def wire_mutations(
    mutations: Sequence[Mutation], dispersed: Mapping[int, Dispersed] | None = None
) -> tuple[WireMutation, ...]:
    """Mutations as they travel; `dispersed[i]` replaces the value of the Put at index i.

    Raises ValueError, naming the field, for what the state machine would not take.
    """
    if not 0 < len(mutations) <= MUTATIONS_MAX:
        raise ValueError(f"a write has 1 to {MUTATIONS_MAX} mutations, not {len(mutations)}")
    named = dispersed or {}
    return tuple(_wire(mutation, named.get(i)) for i, mutation in enumerate(mutations))


def wire_restripe(key: bytes, old: ValueId, dispersed: Dispersed) -> WireMutation:
    """Compare-and-set of the value id; version, expiry and bytes stay."""
    return (RESTRIPE, _key(key), old.pack(), *_wire_dispersed(dispersed))


def wire_check(key: bytes, condition: Condition) -> WireMutation:
    """Only a condition (a watched key that the transaction does not write)."""
    return (CHECK, _key(key), *_wire_condition(condition))


def wire_basis(key: bytes, version: int, answer: int | None = None) -> WireMutation:
    """The write was computed from this version of the key (0: absent).

    If the key has changed, the outcome is NEEDS_VALUE again, which unlike an unmet
    condition consumes no sequence number: compute it anew under the same number.
    `answer`: result of the mutation that was computed; it becomes that of the guard, so that
    a retry through any node is told the same.
    """
    basis = (BASIS, _key(key), *_wire_condition(Condition(version=version))[1:])
    return basis if answer is None else (*basis, answer)


def _wire(mutation: Mutation, dispersed: Dispersed | None) -> WireMutation:
    if type(mutation) is Put:
        return _wire_put(mutation, dispersed)
    if type(mutation) is Delete:
        return (
            DELETE,
            _key(mutation.key),
            *_wire_condition(mutation.condition),
            mutation.previous,
        )
    if type(mutation) is Expire:
        how, when = _wire_expiry(mutation.expiry)
        return (EXPIRE, _key(mutation.key), int(mutation.mode), how, when)
    if type(mutation) is Check:
        return wire_check(mutation.key, mutation.condition)
    if type(mutation) is Increment:
        if not -(2**63) <= mutation.delta < 2**63:
            raise ValueError("delta is not a 64-bit integer")
        return (INCREMENT, _key(mutation.key), mutation.delta)
    if type(mutation) is IncrementFloat:
        return (INCREMENT_FLOAT, _key(mutation.key), bytes(mutation.delta))
    if type(mutation) is Append:
        return (APPEND, _key(mutation.key), bytes(mutation.piece))
    if type(mutation) is Flush:
        return (FLUSH,)
    raise ValueError(f"{type(mutation).__name__} is not a mutation")


def _wire_put(put: Put, dispersed: Dispersed | None) -> WireMutation:
    how, when = _wire_expiry(put.expiry)
    must, version = _wire_condition(put.condition)
    head = (_key(put.key), must, version, how, when, put.previous)
    if dispersed is not None:
        return (PUT_CODED, *head, *_wire_dispersed(dispersed))
    value = put.value
    if not isinstance(value, bytes):
        raise ValueError("the value of a put is neither bytes nor dispersed")
    return (PUT_INLINE, *head, crc32c(value), value)


def _wire_dispersed(dispersed: Dispersed) -> WireMutation:
    code = dispersed.code
    return (
        dispersed.value_id.pack(),
        code.data_shards,
        code.size,
        code.stripe_bytes,
        dispersed.length,
        dispersed.checksum,
        tuple(dispersed.stamp),
        dispersed.epoch,
        tuple(number for holder in dispersed.holders for number in holder),
    )


def _wire_condition(condition: Condition) -> tuple[int, int]:
    must, version = condition
    if not 0 <= version < NUMBER_END:
        raise ValueError("the version of a condition is not one this store gave")
    return int(must), version


def _wire_expiry(expiry: Expiry) -> tuple[int, int]:
    if expiry.keep:
        return EXPIRY_KEEP, 0
    if expiry.at_ms is not None:
        if expiry.at_ms > TIME_MAX:
            raise ValueError(f"at_ms is above {TIME_MAX}")
        return EXPIRY_AT, max(0, expiry.at_ms)
    if expiry.after_ms is not None:
        if expiry.after_ms > TIME_MAX:
            raise ValueError(f"after_ms is above {TIME_MAX}")
        return EXPIRY_AFTER, max(-TIME_MAX, expiry.after_ms)
    return EXPIRY_NEVER, 0


def _key(key: bytes) -> bytes:
    if not isinstance(key, bytes) or not len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"a key is bytes, at most {KEY_BYTES_MAX}")
    return key


def _packed(value: object) -> bytes:
    packed: bytes = _pack(value)
    return packed
