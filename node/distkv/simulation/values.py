"""Values that say who wrote them, and show any byte that is not where it belongs."""

from __future__ import annotations

import hashlib

APPEND_BYTES = 40
"""Every appended piece has this size, so that a value of them can be cut again."""


class Damaged(Exception):
    """Bytes that no client wrote."""


def make(token: str, length: int) -> bytes:
    """A value of about `length` bytes that `token_of` recognises."""
    head = f"{token};".encode()
    return head + hashlib.shake_128(head).digest(max(0, length - len(head)))


def token_of(value: bytes) -> str:
    """Inverse of `make`. Raises Damaged."""
    head, found, rest = value.partition(b";")
    head += found
    if not found or hashlib.shake_128(head).digest(len(rest)) != rest:
        raise Damaged(f"{len(value)} bytes {value[:32]!r}... were written by nobody")
    return head[:-1].decode()


def piece(token: str) -> bytes:
    """What one append adds."""
    made = make(token, APPEND_BYTES)
    assert len(made) == APPEND_BYTES, "tokens of appends are short"
    return made


def pieces_of(value: bytes) -> tuple[str, ...]:
    """Tokens of all appends a value is made of. Raises Damaged."""
    if len(value) % APPEND_BYTES:
        raise Damaged(f"{len(value)} bytes are no whole number of appends")
    return tuple(
        token_of(value[at : at + APPEND_BYTES]) for at in range(0, len(value), APPEND_BYTES)
    )
