"""Operations to plain data and back. `uploads` gives or takes values that travel in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distkv.api.link import checks
from distkv.api.link.frames import LinkError
from distkv.ids import SESSION_BYTES
from distkv.operations import (
    Append,
    Check,
    Condition,
    Count,
    Delete,
    Expire,
    ExpireMode,
    Expiry,
    Flush,
    Get,
    GetMany,
    Increment,
    IncrementFloat,
    Must,
    Mutation,
    OpenSession,
    Operation,
    Put,
    Scan,
    Stat,
    Upload,
    Write,
)

_WRITE, _GET, _GET_MANY, _STAT, _SCAN, _COUNT, _OPEN = range(7)
_PUT, _DELETE, _EXPIRE, _INCREMENT, _INCREMENT_FLOAT, _APPEND, _FLUSH, _CHECK = range(8)

_INT64 = 2**63


def to_plain(operation: Operation, name_upload: Callable[[Upload], int]) -> list[Any]:
    """For the wire; an Upload becomes [its id]."""
    if isinstance(operation, Get):
        return [_GET, operation.key, operation.stale]
    if isinstance(operation, Write):
        mutations = [_mutation_to_plain(m, name_upload) for m in operation.mutations]
        return [_WRITE, operation.session, operation.sequence, operation.low, mutations]
    if isinstance(operation, GetMany):
        return [_GET_MANY, operation.keys]
    if isinstance(operation, Stat):
        return [_STAT, operation.keys]
    if isinstance(operation, Scan):
        return [_SCAN, *operation]
    if isinstance(operation, OpenSession):
        return [_OPEN, operation.session]
    return [_COUNT]


def _mutation_to_plain(m: Mutation, name_upload: Callable[[Upload], int]) -> list[Any]:
    if isinstance(m, Put):
        value = m.value if isinstance(m.value, bytes) else [name_upload(m.value)]
        return [_PUT, m.key, value, m.expiry, m.condition, m.previous]
    if isinstance(m, Delete):
        return [_DELETE, m.key, m.condition, m.previous]
    if isinstance(m, Expire):
        return [_EXPIRE, m.key, m.expiry, m.mode]
    if isinstance(m, Check):
        return [_CHECK, m.key, m.condition]
    if isinstance(m, Increment):
        return [_INCREMENT, m.key, m.delta]
    if isinstance(m, IncrementFloat):
        return [_INCREMENT_FLOAT, m.key, m.delta]
    if isinstance(m, Append):
        return [_APPEND, m.key, m.piece]
    return [_FLUSH]


class OperationReader:
    """Plain data to operations, checked. Raises LinkError."""

    def __init__(self, key_bytes_max: int, take_upload: Callable[[int], Upload]) -> None:
        self._key_max = key_bytes_max
        self._take_upload = take_upload

    def read(self, plain: Any) -> Operation:
        """One operation."""
        if type(plain) is not list or not plain:
            raise LinkError("an operation is an array")
        kind = plain[0]
        if kind == _GET:
            key, stale = checks.fields(plain, 2)
            return Get(self._key(key), checks.flag(stale))
        if kind == _WRITE:
            return self._write(plain)
        if kind == _GET_MANY:
            return GetMany(self._keys(plain))
        if kind == _STAT:
            return Stat(self._keys(plain))
        if kind == _SCAN:
            start, end, prefix, limit = checks.fields(plain, 4)
            return Scan(
                checks.octets(start),
                None if end is None else checks.octets(end),
                checks.octets(prefix),
                checks.number(limit, 1, 10_000_000),
            )
        if kind == _COUNT:
            checks.fields(plain, 0)
            return Count()
        if kind == _OPEN:
            return OpenSession(self._session(checks.fields(plain, 1)[0]))
        raise LinkError(f"unknown operation {kind!r}")

    def _key(self, key: Any) -> bytes:
        return checks.octets(key, self._key_max)

    def _keys(self, plain: list[Any]) -> tuple[bytes, ...]:
        (keys,) = checks.fields(plain, 1)
        return tuple([self._key(key) for key in checks.items(keys)])

    def _session(self, session: Any) -> bytes:
        if len(checks.octets(session)) != SESSION_BYTES:
            raise LinkError(f"a session has {SESSION_BYTES} bytes")
        return bytes(session)

    def _write(self, plain: list[Any]) -> Write:
        session, sequence, low, mutations = checks.fields(plain, 4)
        return Write(
            tuple([self._mutation(m) for m in checks.items(mutations)]),
            None if session is None else self._session(session),
            checks.number(sequence),
            checks.number(low),
        )

    def _mutation(self, plain: Any) -> Mutation:
        if type(plain) is not list or not plain:
            raise LinkError("a mutation is an array")
        kind = plain[0]
        if kind == _PUT:
            key, value, expiry, condition, previous = checks.fields(plain, 5)
            return Put(
                self._key(key),
                self._value(value),
                _expiry(expiry),
                _condition(condition),
                checks.flag(previous),
            )
        if kind == _DELETE:
            key, condition, previous = checks.fields(plain, 3)
            return Delete(self._key(key), _condition(condition), checks.flag(previous))
        if kind == _EXPIRE:
            key, expiry, mode = checks.fields(plain, 3)
            return Expire(self._key(key), _expiry(expiry), ExpireMode(checks.number(mode, 0, 4)))
        if kind == _CHECK:
            key, condition = checks.fields(plain, 2)
            return Check(self._key(key), _condition(condition))
        if kind == _INCREMENT:
            key, delta = checks.fields(plain, 2)
            return Increment(self._key(key), checks.number(delta, -_INT64, _INT64 - 1))
        if kind == _INCREMENT_FLOAT:
            key, text = checks.fields(plain, 2)
            return IncrementFloat(self._key(key), checks.octets(text, 64))
        if kind == _APPEND:
            key, piece = checks.fields(plain, 2)
            return Append(self._key(key), checks.octets(piece))
        if kind == _FLUSH:
            checks.fields(plain, 0)
            return Flush()
        raise LinkError(f"unknown mutation {kind!r}")

    def _value(self, value: Any) -> bytes | Upload:
        if type(value) is list:
            return self._take_upload(checks.number(checks.items(value, 1)[0]))
        return checks.octets(value)


def _expiry(plain: Any) -> Expiry:
    at_ms, after_ms, keep = checks.items(plain, 3)
    return Expiry(
        checks.optional_number(at_ms), checks.optional_number(after_ms), checks.flag(keep)
    )


def _condition(plain: Any) -> Condition:
    must, version = checks.items(plain, 2)
    return Condition(Must(checks.number(must, 0, 4)), checks.number(version))
