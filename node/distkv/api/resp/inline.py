"""Inline commands: words separated by blanks, quoted as Redis lets people quote them."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    rb"""\s*(?:"((?:[^"\\]|\\.)*)"(?=\s|$)|'((?:[^'\\]|\\'|\\(?!'))*)'(?=\s|$)|([^\s"']+))""",
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class UnbalancedQuotes(Exception):
    """A quote has no partner, or text follows a closing quote at once."""


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes([int(match[1], 16)])
    return _LETTERS.get(match[2], match[2])


def split_inline(line: bytes) -> list[bytes]:
    r"""Split into words. Raises UnbalancedQuotes.

    "..." knows \n \r \t \b \a \xHH, '...' only \'.
    """
    words: list[bytes] = []
    at = 0
    line = line.strip()
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            raise UnbalancedQuotes
        if match[1] is not None:
            words.append(_ESCAPE.sub(_unescape, match[1]))
        elif match[2] is not None:
            words.append(match[2].replace(b"\\'", b"'"))
        else:
            words.append(match[3])
        at = match.end()
        if at < len(line) and match[3] is not None and not line[at : at + 1].isspace():
            # A quote right inside a word: Redis would glue it on, which nobody relies on.
            raise UnbalancedQuotes
    return words
