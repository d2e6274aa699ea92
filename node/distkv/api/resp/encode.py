"""Replies as bytes (RESP2 and RESP3, https://redis.io/docs/latest/develop/reference/protocol-spec/).

A reply is bytes, or a list of bytes and downloads when values are too large to be held.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distkv.errors import DistKVError
from distkv.operations import Download, Value

Segment = bytes | Download
Reply = bytes | list[Segment]

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
NIL = b"$-1\r\n"
NIL3 = b"_\r\n"
ZERO = b":0\r\n"
ONE = b":1\r\n"

_SMALL_INTEGERS = tuple(b":%d\r\n" % n for n in range(1024))


class RespError(Exception):
    """An error the door itself answers with; `text` starts with the error word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


SYNTAX_ERROR = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"


def error(text: str) -> bytes:
    """`-text`; line ends within become spaces, the rest is kept."""
    clean = text.replace("\r", " ").replace("\n", " ")
    return b"-%s\r\n" % clean.encode("utf-8", "replace")


def store_error(failure: DistKVError) -> bytes:
    """An error of the store: its RESP word and its message."""
    return error(f"{failure.resp} {failure}")


def nil(resp3: bool) -> bytes:
    """No value."""
    return NIL3 if resp3 else NIL


def integer(number: int) -> bytes:
    """`:number`."""
    if 0 <= number < 1024:
        return _SMALL_INTEGERS[number]
    return b":%d\r\n" % number


def bulk(data: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def simple(text: str) -> bytes:
    """A simple string; must hold no line end."""
    return b"+%s\r\n" % text.encode()


def array(items: list[bytes]) -> bytes:
    """An array of encoded replies."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def mapping(pairs: Iterable[tuple[bytes, bytes]], resp3: bool) -> bytes:
    """A map of encoded replies; RESP2 gets a flat array."""
    flat = [item for pair in pairs for item in pair]
    if resp3:
        return b"%%%d\r\n%b" % (len(flat) // 2, b"".join(flat))
    return array(flat)


def value(result: Any, resp3: bool) -> Reply:
    """`Value | None` as a bulk."""
    if result is None:
        return NIL3 if resp3 else NIL
    data = result[1]
    if type(data) is bytes:
        return b"$%d\r\n%b\r\n" % (len(data), data)
    return [b"$%d\r\n" % data.length, data, b"\r\n"]


def values(results: list[Value | None], resp3: bool) -> Reply:
    """A list of `Value | None` as an array of bulks."""
    segments: list[Segment] = [b"*%d\r\n" % len(results)]
    for result in results:
        reply = value(result, resp3)
        if isinstance(reply, bytes):
            segments.append(reply)
        else:
            segments += reply
    return joined(segments)


def joined(segments: list[Segment]) -> Reply:
    """Neighbouring bytes become one; only bytes become plain bytes."""
    result: list[Segment] = []
    run: list[bytes] = []
    for segment in segments:
        if isinstance(segment, bytes):
            run.append(segment)
        else:
            if run:
                result.append(b"".join(run))
                run = []
            result.append(segment)
    if not result:
        return b"".join(run)
    if run:
        result.append(b"".join(run))
    return result


def constant(reply: bytes) -> Any:
    """An encoder that answers the same whatever the result was."""

    def encode(_result: Any, _resp3: bool) -> Reply:
        return reply

    return encode


encode_ok = constant(OK)


def encode_integer(result: Any, _resp3: bool) -> Reply:
    """An int (or bool) result."""
    return integer(int(result))


def encode_first_integer(result: Any, _resp3: bool) -> Reply:
    """The one result of a write, an int or bool."""
    return integer(int(result[0]))


def encode_previous(result: Any, resp3: bool) -> Reply:
    """The value that the one mutation of a write replaced."""
    return value(result[0].previous, resp3)


def encode_bytes(result: Any, resp3: bool) -> Reply:
    """`bytes | None` as a bulk."""
    return nil(resp3) if result is None else bulk(result)


def encode_reply(result: Any, _resp3: bool) -> Reply:
    """A coroutine's result that is already a reply."""
    reply: Reply = result
    return reply
