"""INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import INTEGER_MIN, integer_argument
from distkv.api.resp.encode import Reply, RespError, bulk
from distkv.api.resp.table import Awaited, Command, Scope
from distkv.operations import Increment, IncrementFloat, Write

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

_DECIMAL = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")


def _add(connection: RespConnection, key: bytes, delta: int) -> Awaited:
    return connection.execute(Write((Increment(key, delta),)), encode.encode_first_integer)


def incr(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """INCR key."""
    return _add(connection, arguments[1], 1)


def decr(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """DECR key."""
    return _add(connection, arguments[1], -1)


def incrby(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """INCRBY key increment."""
    return _add(connection, arguments[1], integer_argument(arguments[2]))


def decrby(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """DECRBY key decrement."""
    delta = integer_argument(arguments[2])
    if delta == INTEGER_MIN:
        raise RespError("ERR decrement would overflow")
    return _add(connection, arguments[1], -delta)


def _encode_text(result: Any, _resp3: bool) -> Reply:
    return bulk(result[0])


def incrbyfloat(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """INCRBYFLOAT key increment."""
    delta: bytes = arguments[2]
    if len(delta) > 64 or _DECIMAL.fullmatch(delta) is None:
        raise RespError("ERR value is not a valid float")
    return connection.execute(Write((IncrementFloat(arguments[1], delta),)), _encode_text)


_KEY = (1, 1, 1)
_FLAGS = ("denyoom", "fast")

COMMANDS = (
    Command("incr", 2, incr, Scope.WRITES, _KEY, flags=_FLAGS),
    Command("decr", 2, decr, Scope.WRITES, _KEY, flags=_FLAGS),
    Command("incrby", 3, incrby, Scope.WRITES, _KEY, flags=_FLAGS),
    Command("decrby", 3, decrby, Scope.WRITES, _KEY, flags=_FLAGS),
    Command("incrbyfloat", 3, incrbyfloat, Scope.WRITES, _KEY, flags=_FLAGS),
)
