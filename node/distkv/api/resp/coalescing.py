"""Plain SETs that stand side by side in a pipeline become one write of several mutations.

They take effect in their order and all at once, which no client can tell from one after the
other, and cost one command in the log instead of many.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

COMMANDS_MAX = 64
VALUE_BYTES_MAX = 4096
"""Larger values are dispersed, which gains nothing from company."""


def leading_sets(backlog: deque[Any], key_bytes_max: int) -> list[list[bytes]]:
    """The commands at the front that are `SET key value` with small values; none is removed."""
    found: list[list[bytes]] = []
    for item in islice(backlog, COMMANDS_MAX):
        if type(item) is not list or len(item) != 3:
            break
        name, key, value = item
        if name not in (b"SET", b"set") or type(key) is not bytes or type(value) is not bytes:
            break
        if len(key) > key_bytes_max or len(value) > VALUE_BYTES_MAX:
            break
        found.append(item)
    return found
