"""Frames of the gateway link: 4 bytes length (big-endian), then a msgpack array.

The first item is the kind. The gateway speaks first (Hello); both ends end the connection at
anything they do not understand. Credit: a sender of pieces may have `WINDOW` bytes under way
that the other side has not granted back.

| kind          | items after it                               | sent by |
|---------------|----------------------------------------------|---------|
| HELLO         | version, token, name                         | gateway |
| REQUEST       | id, deadline in ms from now, operation       | gateway |
| CANCEL        | id                                           | gateway |
| UPLOAD        | upload id, length or nil                     | gateway |
| UPLOAD_PIECE  | upload id, bytes                             | gateway |
| UPLOAD_END    | upload id                                    | gateway |
| UPLOAD_ABORT  | upload id                                    | gateway |
| CREDIT        | download id, bytes                           | gateway |
| CLOSE         | download id                                  | gateway |
| PING          | number                                       | gateway |
| WELCOME       | version                                      | node    |
| RESPONSE      | id, result                                   | node    |
| ERROR         | id, code, message                            | node    |
| UPLOAD_CREDIT | upload id, bytes                             | node    |
| UPLOAD_ERROR  | upload id, code, message                     | node    |
| PIECE         | download id, bytes (none: the end)           | node    |
| PIECE_ERROR   | download id, code, message                   | node    |
| PONG          | number, serving, state, keys                 | node    |
| REFUSED       | code, message                                | node    |
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import msgpack

VERSION = 1
WINDOW = 1024 * 1024
PIECE_MAX = 256 * 1024
INLINE_MAX = 256 * 1024
"""Values above this travel in pieces; a download's first window follows its response at once."""
OVERHEAD = 1024 * 1024
"""What a frame may hold besides the arguments of one command."""
FIRST_FRAME_MAX = 4096

_LENGTH = struct.Struct(">I")


class Kind(IntEnum):
    """See the module."""

    HELLO = 0
    REQUEST = 1
    CANCEL = 2
    UPLOAD = 3
    UPLOAD_PIECE = 4
    UPLOAD_END = 5
    UPLOAD_ABORT = 6
    CREDIT = 7
    CLOSE = 8
    PING = 9
    WELCOME = 16
    RESPONSE = 17
    ERROR = 18
    UPLOAD_CREDIT = 19
    UPLOAD_ERROR = 20
    PIECE = 21
    PIECE_ERROR = 22
    PONG = 23
    REFUSED = 24


class LinkError(Exception):
    """The other side does not speak this protocol; the connection must end."""


def pack(message: Any) -> bytes:
    """One frame."""
    body: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(body)) + body


class FrameParser:
    """Bytes in, messages (lists) out."""

    def __init__(self, frame_max: int) -> None:
        self.frame_max = frame_max
        self._held = bytearray()
        self._need = _LENGTH.size

    def feed(self, data: bytes) -> list[list[Any]]:
        """Messages completed by these bytes. Raises LinkError."""
        held = self._held
        held += data
        messages: list[list[Any]] = []
        at = 0
        while len(held) - at >= self._need:
            if self._need == _LENGTH.size:
                (length,) = _LENGTH.unpack_from(held, at)
                if not 0 < length <= self.frame_max:
                    raise LinkError(
                        f"a frame of {length} bytes, at most {self.frame_max} are taken"
                    )
                self._need += length
                continue
            with memoryview(held) as view:
                messages.append(_unpack(view[at + _LENGTH.size : at + self._need]))
            at += self._need
            self._need = _LENGTH.size
        if at:
            del held[:at]
        return messages


def _unpack(body: memoryview) -> list[Any]:
    try:
        message = msgpack.unpackb(body, raw=False, use_list=True, strict_map_key=True)
    except Exception as error:
        # msgpack raises half a dozen unrelated classes for malformed input.
        raise LinkError(f"not msgpack: {type(error).__name__}") from error
    finally:
        body.release()
    if type(message) is not list or not message or type(message[0]) is not int:
        raise LinkError("a message must be an array that begins with its kind")
    return message
