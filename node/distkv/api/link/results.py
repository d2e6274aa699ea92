"""Results and errors to plain data and back. Values above INLINE_MAX become download ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distkv import errors
from distkv.api.link import checks
from distkv.api.link.frames import INLINE_MAX, LinkError
from distkv.errors import DistKVError
from distkv.operations import (
    Append,
    Check,
    Count,
    Delete,
    Download,
    Expire,
    Flush,
    Get,
    GetMany,
    Increment,
    IncrementFloat,
    Meta,
    OpenSession,
    Operation,
    Page,
    Put,
    Scan,
    Stat,
    Value,
    Write,
    Written,
)


def _subclasses(base: type[DistKVError]) -> list[type[DistKVError]]:
    return [base, *(found for child in base.__subclasses__() for found in _subclasses(child))]


ERRORS: dict[str, type[DistKVError]] = {
    found.code: found for found in _subclasses(DistKVError) if found.__module__ == errors.__name__
}


def error_to_plain(failure: BaseException) -> tuple[str, str]:
    """(code, message)."""
    if isinstance(failure, DistKVError):
        return failure.code, str(failure)
    return DistKVError.code, "internal error, see the log of the node"


def error_from_plain(code: Any, message: Any) -> DistKVError:
    """The same class on the other side. Raises LinkError."""
    found = ERRORS.get(checks.text(code))
    if found is None:
        return DistKVError(f"{code}: {checks.text(message)}")
    return found(checks.text(message))


# -- towards the gateway


def to_plain(operation: Operation, result: Any, name_download: Callable[[Any], int]) -> Any:
    """`name_download` registers bytes or a Download and gives its id."""
    if isinstance(operation, Get):
        return _value_to_plain(result, name_download)
    if isinstance(operation, Write):
        pairs = zip(operation.mutations, result, strict=True)
        return [_one_to_plain(m, r, name_download) for m, r in pairs]
    if isinstance(operation, GetMany):
        return [_value_to_plain(value, name_download) for value in result]
    if isinstance(operation, Scan):
        return [result.keys, result.next_start]
    return result


def _value_to_plain(value: Value | None, name_download: Callable[[Any], int]) -> Any:
    if value is None:
        return None
    data: Any = value.data
    if type(data) is not bytes or len(data) > INLINE_MAX:
        data = name_download(data)
    return [value.meta, data]


def _one_to_plain(mutation: Any, result: Any, name_download: Callable[[Any], int]) -> Any:
    if isinstance(mutation, Put | Delete):
        previous = _value_to_plain(result.previous, name_download)
        return [result.version, result.existed, previous]
    return result


# -- at the gateway


class ResultReader:
    """Plain data to results, checked. Raises LinkError."""

    def __init__(self, open_download: Callable[[int, int], Download]) -> None:
        self._open_download = open_download

    def read(self, operation: Operation, plain: Any) -> object:
        """The result of this operation."""
        if isinstance(operation, Get):
            return self._value(plain)
        if isinstance(operation, Write):
            results = checks.items(plain, len(operation.mutations))
            pairs = zip(operation.mutations, results, strict=True)
            return [self._one(m, r) for m, r in pairs]
        if isinstance(operation, GetMany):
            return [self._value(v) for v in checks.items(plain, len(operation.keys))]
        if isinstance(operation, Stat):
            metas = checks.items(plain, len(operation.keys))
            return [None if meta is None else _meta(meta) for meta in metas]
        if isinstance(operation, Scan):
            return self._page(plain)
        if isinstance(operation, Count):
            return checks.number(plain)
        assert isinstance(operation, OpenSession)
        return checks.flag(plain)

    def _value(self, plain: Any) -> Value | None:
        if plain is None:
            return None
        raw, data = checks.items(plain, 2)
        meta = _meta(raw)
        if type(data) is bytes:
            return Value(meta, data)
        return Value(meta, self._open_download(checks.number(data), meta.length))

    def _one(self, mutation: Any, plain: Any) -> object:
        if isinstance(mutation, Put | Delete):
            version, existed, previous = checks.items(plain, 3)
            return Written(checks.number(version), checks.flag(existed), self._value(previous))
        if isinstance(mutation, Expire | Check):
            return checks.flag(plain)
        if isinstance(mutation, IncrementFloat):
            return checks.octets(plain)
        if isinstance(mutation, Increment | Append | Flush):
            return checks.number(plain, -checks.ID_MAX)
        raise LinkError("a result without a mutation")

    def _page(self, plain: Any) -> Page:
        raw, following = checks.items(plain, 2)
        keys: list[tuple[bytes, Meta]] = []
        for pair in checks.items(raw):
            key, meta = checks.items(pair, 2)
            keys.append((checks.octets(key), _meta(meta)))
        return Page(keys, None if following is None else checks.octets(following))


def _meta(plain: Any) -> Meta:
    version, length, expires_ms, coded = checks.items(plain, 4)
    return Meta(
        checks.number(version),
        checks.number(length),
        checks.optional_number(expires_ms),
        checks.flag(coded),
    )
