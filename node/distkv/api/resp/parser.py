"""Requests of a RESP connection, framed: sans-I/O.

hiredis parses short reads of whole commands, several times faster than Python could, but it
delivers bulks whole, knows no inline commands, allocates whatever an array header announces
and cannot say where it stopped. So every read begins and ends at a known place: a read that
hiredis did not consume to the byte is scanned again here, exactly. Bulks above
`STREAMED_FROM` go to a `LargeArgument` as they arrive.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

import hiredis

from distkv.api.options import RESP_BULK_MAX, STREAMED_FROM, Limits
from distkv.api.resp.inline import UnbalancedQuotes, split_inline

FAST_READ_MAX = 16 * 1024
"""Longer reads are large values or long pipelines, which the scanner takes as fast."""

_HEADER_MAX = 32
_STAR = ord("*")
_DOLLAR = ord("$")
_BIG_AGGREGATE = re.compile(rb"\*\d{5}")
_BIG_PUSH = re.compile(rb">\d{5}")
"""hiredis allocates an announced array or push at once: such a read is scanned instead."""
_SENTINEL = b":1\r\n"
"""Fed after a read; comes back as the integer 1 only if hiredis stood between commands."""


class LargeArgument(Protocol):
    """Takes a bulk above `STREAMED_FROM`, piece by piece. Never raises."""

    def write(self, piece: bytes) -> None:
        """The next bytes."""

    def finish(self) -> None:
        """That was all of it."""

    def abort(self) -> None:
        """The command will not be executed."""


class Refused(NamedTuple):
    """A command that was read to its end but passed a limit."""

    text: str


Argument = bytes | LargeArgument
Item = list[Argument] | Refused


class _Broken(Exception):
    """The client does not speak the protocol; the text is Redis's own where it has one."""


class RequestParser:
    """Bytes in, commands out. After `broken` is set the connection must be closed."""

    def __init__(
        self, limits: Limits, open_large: Callable[[list[Argument], int], LargeArgument]
    ) -> None:
        self._limits = limits
        self._open_large = open_large
        self._reader = hiredis.Reader()
        self._held = bytearray()
        self._need = 0
        self._remaining = 0
        self._arguments: list[Argument] = []
        self._bytes = 0
        self._dropped: str | None = None
        self._large: LargeArgument | None = None
        self._left = 0
        self.broken: str | None = None

    @property
    def receiving_large(self) -> bool:
        """Whether the client is in the middle of a large bulk."""
        return self._large is not None

    @property
    def held(self) -> int:
        """Bytes of an incomplete command held here (large bulks not counted)."""
        return self._bytes + len(self._held)

    def drop(self, text: str) -> None:
        """Hold nothing of the incomplete command any more; it will be `Refused(text)`."""
        self._dropped = text
        abort_all(self._arguments)
        self._arguments = []
        self._bytes = 0

    def abort(self) -> None:
        """The client went away: give up what was begun."""
        if self._large is not None:
            self._large.abort()
            self._large = None
        abort_all(self._arguments)
        self._arguments = []

    def feed(self, data: bytes) -> list[Item]:
        """Commands completed by these bytes, in order."""
        if self.broken is not None:
            return []
        if (
            len(data) <= FAST_READ_MAX
            and data[0] == _STAR
            and not self._remaining
            and not self._held
            and _BIG_AGGREGATE.search(data) is None
            and _BIG_PUSH.search(data) is None
        ):
            commands = self._fast(data)
            if commands is not None:
                return commands
        items: list[Item] = []
        try:
            self._scan(data, items)
        except _Broken as broken:
            self.broken = f"ERR Protocol error: {broken}"
            self.abort()
        return items

    def _fast(self, data: bytes) -> list[Item] | None:
        """None: not exactly a row of whole, well-formed commands.

        More lenient than the scanner in one thing no client does: simple strings as arguments.
        """
        reader = self._reader
        commands: list[Item] = []
        try:
            reader.feed(data)
            while (command := reader.gets()) is not False:
                if type(command) is not list or not command:
                    break
                for argument in command:
                    if type(argument) is not bytes:
                        break
                else:
                    commands.append(command)
                    continue
                break
            else:
                reader.feed(_SENTINEL)
                if type(after := reader.gets()) is int and after == 1:
                    return commands
        except hiredis.HiredisError:
            pass
        self._reader = hiredis.Reader()
        return None

    def _scan(self, data: bytes, items: list[Item]) -> None:
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return
            data = bytes(self._held)
            self._held.clear()
        at = 0
        size = len(data)
        while at < size:
            if self._large is not None:
                after = self._scan_large(data, at, items)
            elif self._remaining:
                after = self._scan_bulk(data, at, items)
            elif data[at] == _STAR:
                after = self._scan_count(data, at)
            else:
                after = self._scan_inline(data, at, items)
            if after < 0:
                self._held += memoryview(data)[at:]
                self._need = size - at + -after
                return
            at = after

    def _scan_count(self, data: bytes, at: int) -> int:
        """Position after `*count`; negative: so many more bytes are needed at least."""
        end = _line_end(data, at, "too big mbulk count string")
        if end < 0:
            return end
        digits = data[at + 1 : end]
        if digits[:1] == b"-" and _is_number(digits[1:]):
            return end + 2
        if not _is_number(digits):
            raise _Broken("invalid multibulk length")
        count = int(digits)
        if count > self._limits.arguments_max:
            raise _Broken(
                f"invalid multibulk length: a command has {self._limits.arguments_max} "
                "arguments at most"
            )
        self._remaining = count
        return end + 2

    def _scan_bulk(self, data: bytes, at: int, items: list[Item]) -> int:
        if data[at] != _DOLLAR:
            got = data[at : at + 1].decode("ascii", "replace")
            raise _Broken(f"expected '$', got '{got}'")
        end = _line_end(data, at, "too big bulk count string")
        if end < 0:
            return end
        digits = data[at + 1 : end]
        if not _is_number(digits):
            raise _Broken("invalid bulk length")
        if int(digits) > RESP_BULK_MAX:
            limit = self._limits.value_bytes_max
            raise _Broken(f"invalid bulk length (limit value_bytes_max is {limit} bytes)")
        length = int(digits)
        start = end + 2
        if length > STREAMED_FROM:
            self._large = self._open_large(self._arguments, length)
            self._left = length
            return start
        stop = start + length
        missing = stop + 2 - len(data)
        if missing > 0:
            return -missing
        if data[stop : stop + 2] != b"\r\n":
            raise _Broken("a bulk string must end with CRLF")
        self._add(data[start:stop], items)
        return stop + 2

    def _scan_large(self, data: bytes, at: int, items: list[Item]) -> int:
        large = self._large
        assert large is not None
        if self._left:
            taken = min(self._left, len(data) - at)
            large.write(data if taken == len(data) else data[at : at + taken])
            self._left -= taken
            return at + taken
        if len(data) - at < 2:
            return -1
        if data[at : at + 2] != b"\r\n":
            raise _Broken("a bulk string must end with CRLF")
        self._large = None
        large.finish()
        self._add(large, items)
        return at + 2

    def _add(self, argument: Argument, items: list[Item]) -> None:
        if isinstance(argument, bytes) and self._dropped is None:
            self._bytes += len(argument)
            limit = self._limits.command_bytes_max
            if self._bytes > limit:
                self.drop(
                    f"TOOLARGE the arguments of one command are over the limit "
                    f"command_bytes_max ({limit} bytes)"
                )
        if self._dropped is None:
            self._arguments.append(argument)
        elif not isinstance(argument, bytes):
            argument.abort()
        self._remaining -= 1
        if not self._remaining:
            items.append(Refused(self._dropped) if self._dropped is not None else self._arguments)
            self._arguments = []
            self._bytes = 0
            self._dropped = None

    def _scan_inline(self, data: bytes, at: int, items: list[Item]) -> int:
        limit = self._limits.inline_bytes_max
        end = data.find(b"\n", at, at + limit)
        if end < 0:
            if len(data) - at >= limit:
                raise _Broken(f"too big inline request: it has {limit} bytes at most")
            return -1
        try:
            words = split_inline(data[at:end].rstrip(b"\r"))
        except UnbalancedQuotes as error:
            raise _Broken("unbalanced quotes in request") from error
        if words:
            items.append(list(words))
        return end + 1


def abort_all(arguments: list[Argument]) -> None:
    """Give up the large ones among them."""
    for argument in arguments:
        if not isinstance(argument, bytes):
            argument.abort()


def _is_number(digits: bytes) -> bool:
    """Canonical decimal, as hiredis takes it: no sign, no leading zero, at most 10 digits."""
    return digits.isdigit() and len(digits) <= 10 and (digits[0] != 48 or len(digits) == 1)


def _line_end(data: bytes, at: int, too_long: str) -> int:
    """Position of the CRLF that ends a header; -1: not there yet."""
    end = data.find(b"\r\n", at, at + _HEADER_MAX)
    if end < 0 and len(data) - at >= _HEADER_MAX:
        raise _Broken(too_long)
    return end
