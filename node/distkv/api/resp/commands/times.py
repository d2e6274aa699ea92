"""Times in arguments: EX, PX, EXAT, PXAT."""

from __future__ import annotations

from distkv.api.resp.commands.common import INTEGER_MAX, integer_argument
from distkv.api.resp.encode import RespError
from distkv.operations import Expiry

TIME_OPTIONS = frozenset((b"EX", b"PX", b"EXAT", b"PXAT"))


def milliseconds(option: bytes, argument: bytes, command: str) -> int:
    """The time in ms. Raises RespError with Redis's text."""
    number = integer_argument(argument)
    if option in (b"EX", b"EXAT"):
        number *= 1000
    if abs(number) > INTEGER_MAX // 2:
        raise RespError(f"ERR invalid expire time in '{command}' command")
    return number


def expiry(option: bytes, argument: bytes, command: str) -> Expiry:
    """Relative (EX, PX) or absolute (EXAT, PXAT), of any sign."""
    number = milliseconds(option, argument, command)
    if option in (b"EX", b"PX"):
        return Expiry(after_ms=number)
    return Expiry(at_ms=number)


def expiry_argument(option: bytes, argument: bytes, command: str) -> Expiry:
    """As `expiry`, for commands that refuse a time that is not positive."""
    if milliseconds(option, argument, command) <= 0:
        raise RespError(f"ERR invalid expire time in '{command}' command")
    return expiry(option, argument, command)
