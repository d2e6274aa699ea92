"""Types of what arrives: every field is checked before it is used."""

from __future__ import annotations

from typing import Any

from distkv.api.link.frames import LinkError

ID_MAX = 2**63


def fields(message: list[Any], count: int) -> list[Any]:
    """The items after the kind; exactly `count`."""
    if len(message) != count + 1:
        raise LinkError(f"kind {message[0]} has {len(message) - 1} items instead of {count}")
    return message[1:]


def number(value: Any, low: int = 0, high: int = ID_MAX) -> int:
    """An int within the bounds."""
    if type(value) is not int or not low <= value <= high:
        raise LinkError(f"not a number from {low} to {high}")
    return value


def octets(value: Any, most: int | None = None) -> bytes:
    """Bytes, not too many."""
    if type(value) is not bytes or (most is not None and len(value) > most):
        raise LinkError("not bytes, or too many")
    return value


def text(value: Any, most: int = 65536) -> str:
    """Text, not too long."""
    if type(value) is not str or len(value) > most:
        raise LinkError("not text, or too long")
    return value


def flag(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise LinkError("neither true nor false")
    return value


def items(value: Any, count: int | None = None) -> list[Any]:
    """An array, of `count` items if it is given."""
    if type(value) is not list or (count is not None and len(value) != count):
        raise LinkError("not an array of the right length")
    return value


def optional_number(value: Any) -> int | None:
    """A number or nil."""
    return None if value is None else number(value, -ID_MAX)
