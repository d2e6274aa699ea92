"""What several families need: numbers in arguments, flows, reading a value whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from distkv.api.flow import run
from distkv.api.resp.encode import NOT_AN_INTEGER, Reply, RespError, encode_reply
from distkv.api.resp.table import Awaited
from distkv.operations import Mutation, Value, Write

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
_INTEGER = re.compile(rb"-?(?:0|[1-9]\d{0,18})")


def integer_argument(argument: bytes, text: str = NOT_AN_INTEGER) -> int:
    """A 64-bit integer, canonical as Redis wants it. Raises RespError(text)."""
    if _INTEGER.fullmatch(argument) is None or argument == b"-0":
        raise RespError(text)
    number = int(argument)
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise RespError(text)
    return number


class Call:
    """What a command of several steps works with: its own deadline, not the latest one."""

    __slots__ = ("cursors", "deadline", "limits", "resp3", "store")

    def __init__(self, connection: RespConnection) -> None:
        self.store = connection.store
        self.deadline = connection.deadline
        self.limits = connection.limits
        self.resp3 = connection.resp3
        self.cursors = connection.server.cursors


Flow = Callable[[Call, list[Any]], Coroutine[Any, Any, Reply]]


def flow(function: Flow) -> Callable[[RespConnection, list[Any]], Awaited]:
    """Make a handler of a coroutine function that returns the reply."""

    def handler(connection: RespConnection, arguments: list[Any]) -> Awaited:
        return Awaited(run(function(Call(connection), arguments)), encode_reply)

    handler.__doc__ = function.__doc__
    return handler


async def write(call: Call, *mutations: Mutation) -> list[Any]:
    """Submit one write and wait for its results."""
    operation = Write(mutations)
    results: Any = await call.store.execute(operation, call.deadline)
    done: list[Any] = results
    return done


async def whole(call: Call, value: Value, what: str) -> bytes:
    """The value as bytes. Raises RespError above `command_bytes_max`, naming it."""
    if isinstance(value.data, bytes):
        return value.data
    limit = call.limits.command_bytes_max
    download = value.data
    try:
        if download.length > limit:
            raise RespError(
                f"TOOLARGE {what} reads the value whole: {download.length} bytes are over the "
                f"limit command_bytes_max ({limit} bytes)"
            )
        pieces: list[bytes] = []
        while piece := await download.next():
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        download.close()


def upper(argument: object) -> bytes:
    """The name of an option; what is too large to be one is none."""
    return argument.upper() if isinstance(argument, bytes) else b""
