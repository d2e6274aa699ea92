"""Strict reading of entries: everything is checked before anything is applied.

A leader checks the commands that others forward with `parse_command` before it proposes
them, so what fails here at apply is this program's own mistake or a newer version's entry:
the node halts with `UnknownEntry`, and nothing of the entry was applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from distkv.core.configuration import NODES_MAX
from distkv.ids import SESSION_BYTES, VALUE_ID_BYTES, Ballot
from distkv.machine.commands import (
    APPEND,
    BASIS,
    BOOT,
    CHECK,
    DELETE,
    EXPIRE,
    EXPIRY_KEEP,
    FLUSH,
    FORMED,
    HEAD_BYTES,
    INCREMENT,
    INCREMENT_FLOAT,
    KEY_BYTES_MAX,
    LAYOUT,
    MUTATIONS_MAX,
    NUMBER_END,
    OPEN,
    OWNER,
    PUT_CODED,
    PUT_INLINE,
    REPLACE,
    RESTRIPE,
    RETIRE,
    SETTLED,
    TICK,
    TIME_MAX,
    WRITE,
    UnknownEntry,
)

Fields = tuple[Any, ...]
_unpack = msgpack.unpackb
_FAILURES = (ValueError, TypeError, msgpack.UnpackException)
_MUST_MAX = 4
_MODE_MAX = 4
_CRC_END = 2**32
_OWNER_MAX = 256


def _unpacked(raw: bytes, what: str) -> Fields:
    try:
        fields = _unpack(raw, use_list=False)
    except _FAILURES as error:
        raise UnknownEntry(f"{what} of {len(raw)} bytes is not msgpack: {error}") from error
    if type(fields) is not tuple:
        raise UnknownEntry(f"{what} is not an array")
    return fields


def parse_batch(entry: bytes) -> list[Fields]:
    """The commands of a batch entry, as tuples (kind, ...). Raises UnknownEntry."""
    return [parse_command(packed) for packed in _unpacked(entry[HEAD_BYTES:], "a batch")]


def parse_command(packed: bytes) -> Fields:
    """One command, as the tuple (kind, ...). Raises UnknownEntry."""
    try:
        command: Fields = _unpack(packed, use_list=False)
        good = _COMMANDS[command[0]](command)
    except (LookupError, *_FAILURES) as error:
        raise UnknownEntry(f"unknown command {packed!r:.99}: {error!r}") from error
    if not good:
        raise UnknownEntry(f"malformed command of kind {command[0]}: {packed[:64]!r}")
    return command


def parse_barrier(entry: bytes) -> Ballot:
    """The ballot of a barrier entry. Raises UnknownEntry."""
    fields = _unpacked(entry[HEAD_BYTES:], "a barrier")
    if not _is_ballot(fields):
        raise UnknownEntry("a barrier is not a ballot")
    return Ballot(*fields)


def parse_change(entry: bytes) -> Fields:
    """The change of a configuration entry, as the tuple (change, owner, ...)."""
    fields = _unpacked(entry[HEAD_BYTES:], "a configuration change")
    try:
        good = _is_owner(fields[1]) and _CHANGES[fields[0]](fields)
    except (LookupError, *_FAILURES) as error:
        raise UnknownEntry(f"unknown configuration change {fields!r}: {error!r}") from error
    if not good:
        raise UnknownEntry(f"malformed configuration change {fields!r}")
    return fields


# -- pieces of the grammar ---------------------------------------------------------------


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < NUMBER_END


def _are_numbers(values: Fields) -> bool:
    return all(type(value) is int and 0 <= value < NUMBER_END for value in values)


def _is_key(value: object) -> bool:
    return type(value) is bytes and len(value) <= KEY_BYTES_MAX


def _is_owner(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= _OWNER_MAX


def _is_ballot(value: object) -> bool:
    return type(value) is tuple and len(value) == 3 and _are_numbers(value)


def _is_value_id(value: object) -> bool:
    return type(value) is bytes and len(value) == VALUE_ID_BYTES


def _is_session(value: object) -> bool:
    return type(value) is bytes and len(value) == SESSION_BYTES


def _is_condition(must: object, version: object) -> bool:
    return type(must) is int and 0 <= must <= _MUST_MAX and _is_number(version)


def _is_expiry(how: object, when: object) -> bool:
    return (
        type(how) is int
        and 0 <= how <= EXPIRY_KEEP
        and type(when) is int
        and -TIME_MAX <= when <= TIME_MAX
    )


def _is_dispersed(fields: Fields) -> bool:
    value_id, data_shards, size, stripe_bytes, length, checksum, stamp, epoch, holders = fields
    return (
        _is_value_id(value_id)
        and _are_numbers((data_shards, size, stripe_bytes, length, checksum, epoch))
        and 1 <= data_shards <= size <= NODES_MAX
        and stripe_bytes > 0
        and checksum < _CRC_END
        and _is_ballot(stamp)
        and type(holders) is tuple
        and len(holders) % 2 == 0
        and len(holders) <= 2 * NODES_MAX
        and _are_numbers(holders)
    )


# -- mutations ---------------------------------------------------------------------------


def _put_inline(mutation: Fields) -> bool:
    _, key, must, version, how, when, previous, checksum, value = mutation
    return (
        type(key) is bytes
        and len(key) <= KEY_BYTES_MAX
        and type(must) is int
        and 0 <= must <= _MUST_MAX
        and type(version) is int
        and 0 <= version < NUMBER_END
        and type(how) is int
        and 0 <= how <= EXPIRY_KEEP
        and type(when) is int
        and -TIME_MAX <= when <= TIME_MAX
        and type(previous) is bool
        and type(checksum) is int
        and 0 <= checksum < _CRC_END
        and type(value) is bytes
    )


def _put_coded(mutation: Fields) -> bool:
    _, key, must, version, how, when, previous = mutation[:7]
    return (
        _is_key(key)
        and _is_condition(must, version)
        and _is_expiry(how, when)
        and type(previous) is bool
        and _is_dispersed(mutation[7:])
    )


def _delete(mutation: Fields) -> bool:
    _, key, must, version, previous = mutation
    return _is_key(key) and _is_condition(must, version) and type(previous) is bool


def _expire(mutation: Fields) -> bool:
    _, key, mode, how, when = mutation
    return _is_key(key) and type(mode) is int and 0 <= mode <= _MODE_MAX and _is_expiry(how, when)


def _increment(mutation: Fields) -> bool:
    _, key, delta = mutation
    return _is_key(key) and type(delta) is int and -NUMBER_END <= delta < NUMBER_END


def _key_and_bytes(mutation: Fields) -> bool:
    _, key, piece = mutation
    return _is_key(key) and type(piece) is bytes


def _restripe(mutation: Fields) -> bool:
    return _is_key(mutation[1]) and _is_value_id(mutation[2]) and _is_dispersed(mutation[3:])


def _check(mutation: Fields) -> bool:
    _, key, must, version = mutation
    return _is_key(key) and _is_condition(must, version)


def _basis(mutation: Fields) -> bool:
    _, key, version, *answer = mutation
    plain = not answer or (len(answer) == 1 and _is_number(answer[0]))
    return _is_key(key) and _is_number(version) and plain


_MUTATIONS: dict[object, Callable[[Fields], bool]] = {
    PUT_INLINE: _put_inline,
    PUT_CODED: _put_coded,
    DELETE: _delete,
    EXPIRE: _expire,
    INCREMENT: _increment,
    INCREMENT_FLOAT: _key_and_bytes,
    APPEND: _key_and_bytes,
    FLUSH: lambda mutation: len(mutation) == 1,
    RESTRIPE: _restripe,
    CHECK: _check,
    BASIS: _basis,
}


# -- commands ----------------------------------------------------------------------------


def _write(command: Fields) -> bool:
    _, session, sequence, low, implicit, mutations = command
    if not (
        type(session) is bytes
        and len(session) == SESSION_BYTES
        and type(sequence) is int
        and 0 <= sequence < NUMBER_END
        and type(low) is int
        and 0 <= low < NUMBER_END
        and type(implicit) is bool
        and type(mutations) is tuple
        and 0 < len(mutations) <= MUTATIONS_MAX
    ):
        return False
    # A loop, not all(): this runs for every command of every node.
    for mutation in mutations:  # noqa: SIM110
        if not _MUTATIONS[mutation[0]](mutation):
            return False
    return True


def _boot(command: Fields) -> bool:
    return len(command) == 5 and _are_numbers(command[1:]) and command[3] < _CRC_END


def _formed(command: Fields) -> bool:
    _, cluster, owner = command
    return type(cluster) is bytes and _is_owner(owner)


_COMMANDS: dict[object, Callable[[Fields], bool]] = {
    WRITE: _write,
    BOOT: _boot,
    SETTLED: lambda command: len(command) == 4 and _are_numbers(command[1:]),
    OPEN: lambda command: len(command) == 2 and _is_session(command[1]),
    TICK: lambda command: len(command) == 1,
    FORMED: _formed,
}


# -- configuration changes ---------------------------------------------------------------


def _layout(change: Fields) -> bool:
    _, _, epoch, k, m, incarnations = change
    return (
        _are_numbers((epoch, k, m))
        and type(incarnations) is tuple
        and 0 < len(incarnations) <= NODES_MAX
        and _are_numbers(incarnations)
    )


_CHANGES: dict[object, Callable[[Fields], bool]] = {
    REPLACE: lambda change: len(change) == 5 and _are_numbers(change[2:]),
    LAYOUT: _layout,
    RETIRE: lambda change: len(change) == 3 and _is_number(change[2]),
    OWNER: lambda change: len(change) == 3 and _is_owner(change[2]),
}
