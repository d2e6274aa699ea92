"""Readers of message fields: each takes what msgpack unpacked and returns the typed value.

All raise WireError for a value of the wrong type or out of range. A peer that holds the
cluster key may still be faulty, so nothing it sends is believed before it was read here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from distkv.ids import ZERO_BALLOT, Ballot, Member, ValueId

Reader = Callable[[Any], Any]
E = TypeVar("E", bound=IntEnum)

NUMBER_END = 2**63
CRC_END = 2**32
ENTRIES_MAX = 65536
"""Entries, commands or value ids in one message."""


class WireError(Exception):
    """What arrived is not a message of this version; the text says where it went wrong."""


def number(value: Any) -> int:
    """0 <= value < 2**63."""
    if type(value) is not int or not 0 <= value < NUMBER_END:
        raise WireError(f"{_shown(value)} is not a number")
    return value


def integer(low: int, high: int) -> Reader:
    """low <= value <= high."""

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise WireError(f"{_shown(value)} is not between {low} and {high}")
        return value

    return read


crc = integer(0, CRC_END - 1)
optional_slot = integer(-1, NUMBER_END - 1)
"""A slot, or -1 for none."""


def boolean(value: Any) -> bool:
    """True or False."""
    if type(value) is not bool:
        raise WireError(f"{_shown(value)} is neither true nor false")
    return value


def blob(value: Any) -> bytes:
    """Bytes; their length is bounded by that of the whole message."""
    if type(value) is not bytes:
        raise WireError(f"{_shown(value)} is not bytes")
    return value


def blob_to(limit: int) -> Reader:
    """At most `limit` bytes."""

    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > limit:
            raise WireError(f"{_shown(value)} is not bytes, at most {limit}")
        return value

    return read


def text_to(limit: int) -> Reader:
    """Text of at most `limit` characters."""

    def read(value: Any) -> str:
        if type(value) is not str or len(value) > limit:
            raise WireError(f"{_shown(value)} is not text of at most {limit} characters")
        return value

    return read


def one_of(kind: type[E]) -> Reader:
    """A member of an enumeration."""
    members = {int(member): member for member in kind}

    def read(value: Any) -> E:
        if type(value) is not int or value not in members:
            raise WireError(f"{_shown(value)} is no {kind.__name__}")
        return members[value]

    return read


def array_of(reader: Reader, limit: int = ENTRIES_MAX) -> Reader:
    """A tuple of at most `limit` items."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple or len(value) > limit:
            raise WireError(f"{_shown(value)} is not an array of at most {limit} items")
        return tuple([reader(item) for item in value])

    return read


def tuple_of(kind: Callable[..., Any], *readers: Reader) -> Reader:
    """Exactly these items; `kind` is called with what they are read as."""
    length = len(readers)

    def read(value: Any) -> Any:
        if type(value) is not tuple or len(value) != length:
            raise WireError(f"{_shown(value)} is not an array of {length} items")
        return kind(*[reader(item) for reader, item in zip(readers, value, strict=True)])

    return read


_latest = ZERO_BALLOT
"""The ballot read last: a leader's messages all name the same."""


def ballot(value: Any) -> Ballot:
    """(round, ordinal, incarnation)."""
    global _latest
    if value == _latest:
        return _latest
    if type(value) is tuple and len(value) == 3:
        first, ordinal, incarnation = value
        if (
            type(first) is int
            and 0 <= first < NUMBER_END
            and type(ordinal) is int
            and 0 <= ordinal < CRC_END
            and type(incarnation) is int
            and 0 <= incarnation < NUMBER_END
        ):
            _latest = Ballot(first, ordinal, incarnation)
            return _latest
    raise WireError(f"{_shown(value)} is not a ballot")


value_id = tuple_of(ValueId, number, integer(0, CRC_END - 1), number)
member = tuple_of(Member, integer(0, CRC_END - 1), number)


def blobs(value: Any) -> tuple[bytes, ...]:
    """A tuple of bytes (log entries, commands)."""
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise WireError(f"{_shown(value)} is not an array of at most {ENTRIES_MAX} items")
    for item in value:
        if type(item) is not bytes:
            raise WireError(f"{_shown(item)} is not bytes")
    return value


def _shown(value: Any) -> str:
    """A short picture of something foreign, safe to log."""
    if type(value) in (int, float, bool) or value is None:
        return repr(value)[:40]
    size = len(value) if hasattr(value, "__len__") else 0
    return f"{type(value).__name__} of length {size}"
