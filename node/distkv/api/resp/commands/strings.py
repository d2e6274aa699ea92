"""Reading values: GET, MGET, STRLEN, GETRANGE; changing parts: APPEND, SETRANGE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import Call, flow, integer_argument, whole, write
from distkv.api.resp.encode import Reply, RespError, bulk, integer
from distkv.api.resp.table import Awaited, Command, Scope
from distkv.errors import ConditionFailed
from distkv.operations import (
    Append,
    Condition,
    Expiry,
    Get,
    GetMany,
    Must,
    Put,
    Stat,
    Value,
    Write,
)

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection


def get(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """GET key."""
    return Awaited(connection.store.execute(Get(arguments[1]), connection.deadline), encode.value)


def mget(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """MGET key ...: all from one moment."""
    return connection.execute(GetMany(tuple(arguments[1:])), encode.values)


def _encode_length(result: Any, _resp3: bool) -> Reply:
    return integer(result[0].length if result[0] is not None else 0)


def strlen(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """STRLEN key."""
    return connection.execute(Stat((arguments[1],)), _encode_length)


def append(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """APPEND key value."""
    operation = Write((Append(arguments[1], arguments[2]),))
    return connection.execute(operation, encode.encode_first_integer)


def _bounds(start: int, end: int, length: int) -> tuple[int, int]:
    """Redis's inclusive, possibly negative range as a slice."""
    if start < 0:
        start = max(length + start, 0)
    if end < 0:
        end = max(length + end, 0)
    return start, min(end + 1, length)


async def _part(value: Value, start: int, stop: int) -> bytes:
    """Bytes start..stop of a value; pieces before them are read and dropped."""
    if isinstance(value.data, bytes):
        return value.data[start:stop]
    download = value.data
    parts: list[bytes] = []
    at = 0
    try:
        while at < stop and (piece := await download.next()):
            parts.append(piece[max(start - at, 0) : stop - at])
            at += len(piece)
    finally:
        download.close()
    return b"".join(parts)


async def getrange(call: Call, arguments: list[Any]) -> Reply:
    """GETRANGE key start end."""
    first, last = integer_argument(arguments[2]), integer_argument(arguments[3])
    value: Any = await call.store.execute(Get(arguments[1]), call.deadline)
    if value is None:
        return bulk(b"")
    start, stop = _bounds(first, last, value.meta.length)
    limit = call.limits.command_bytes_max
    if stop <= start or (first < 0 and last < 0 and first > last):
        stop = start
    if stop - start > limit and not isinstance(value.data, bytes):
        value.data.close()
        raise RespError(
            f"TOOLARGE a range of {stop - start} bytes is over the limit "
            f"command_bytes_max ({limit} bytes)"
        )
    return bulk(await _part(value, start, stop))


async def setrange(call: Call, arguments: list[Any]) -> Reply:
    """SETRANGE key offset value: read, patch, and put if the version is still the same."""
    offset = integer_argument(arguments[2])
    patch: bytes = arguments[3]
    limits = call.limits
    limit = min(limits.command_bytes_max, limits.value_bytes_max)
    if offset < 0:
        raise RespError("ERR offset is out of range")
    if patch and offset + len(patch) > limit:
        raise RespError(
            f"TOOLARGE SETRANGE writes the value whole: {offset + len(patch)} bytes are over "
            f"the limit command_bytes_max ({limit} bytes)"
        )
    while True:
        value: Any = await call.store.execute(Get(arguments[1]), call.deadline)
        old = b"" if value is None else await whole(call, value, "SETRANGE")
        if not patch:
            return integer(len(old))
        new = old[:offset].ljust(offset, b"\0") + patch + old[offset + len(patch) :]
        condition = (
            Condition(Must.BE_ABSENT)
            if value is None
            else Condition(Must.HAVE_VERSION, value.meta.version)
        )
        try:
            await write(call, Put(arguments[1], new, Expiry(keep=True), condition))
        except ConditionFailed:
            continue
        return integer(len(new))


_KEY = (1, 1, 1)

COMMANDS = (
    Command("get", 2, get, Scope.READS, _KEY, flags=("fast",)),
    Command("mget", -2, mget, Scope.READS, (1, -1, 1), flags=("fast",)),
    Command("strlen", 2, strlen, Scope.READS, _KEY, flags=("fast",)),
    Command("append", 3, append, Scope.WRITES, _KEY, flags=("denyoom", "fast")),
    Command("getrange", 4, flow(getrange), Scope.READS, _KEY),
    Command("substr", 4, flow(getrange), Scope.READS, _KEY),
    Command("setrange", 4, flow(setrange), Scope.WRITES, _KEY, flags=("denyoom",)),
)
