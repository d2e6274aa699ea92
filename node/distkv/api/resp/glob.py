"""Redis's glob patterns (KEYS, SCAN MATCH) over bytes.

The parts between stars have fixed lengths, so each is looked for once, from the left:
no pattern makes matching take longer than its length times the key's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_SPECIAL = re.compile(rb"[*?\[\\]")


class _Part(NamedTuple):
    """What stands between two stars; matches exactly `length` bytes."""

    regex: re.Pattern[bytes]
    length: int


class Glob:
    r"""`*`, `?`, `[abc]`, `[^a-z]` and `\x`, as Redis reads them, over the whole key."""

    def __init__(self, pattern: bytes) -> None:
        self._parts = _split(pattern)

    def matches(self, key: bytes) -> bool:
        """Whether the whole key is as the pattern says."""
        first, *rest = self._parts
        if first.regex.match(key) is None:
            return False
        if not rest:
            return len(key) == first.length
        at = first.length
        *middle, last = rest
        for part in middle:
            found = part.regex.search(key, at)
            if found is None:
                return False
            at = found.end()
        start = len(key) - last.length
        return start >= at and last.regex.match(key, start) is not None


@lru_cache(maxsize=256)
def compile_glob(pattern: bytes) -> Glob:
    """The glob of a pattern; the latest are remembered."""
    return Glob(pattern)


def literal_prefix(pattern: bytes) -> bytes:
    """What every match begins with; lets a scan skip the rest of the key space."""
    match = _SPECIAL.search(pattern)
    return pattern if match is None else pattern[: match.start()]


def _split(pattern: bytes) -> list[_Part]:
    parts: list[_Part] = []
    atoms: list[bytes] = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"*":
            parts.append(_part(atoms))
            atoms = []
        elif char == b"?":
            atoms.append(b".")
        elif char == b"[":
            atom, at = _class(pattern, at)
            atoms.append(atom)
        else:
            if char == b"\\" and at < len(pattern):
                char = pattern[at : at + 1]
                at += 1
            atoms.append(re.escape(char))
    parts.append(_part(atoms))
    return parts


def _part(atoms: list[bytes]) -> _Part:
    return _Part(re.compile(b"".join(atoms), re.DOTALL), len(atoms))


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class after `[` as a regex of one byte, and the position after it."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: list[bytes] = []
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.append(b"\\x%02x" % pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.append(b"\\x%02x-\\x%02x" % (low, high))
            at += 3
        else:
            members.append(b"\\x%02x" % pattern[at])
            at += 1
    at += 1
    if not members:
        return (b"." if negated else b"(?!)"), at
    return b"[%b%b]" % (b"^" if negated else b"", b"".join(members)), at
