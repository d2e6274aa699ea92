"""Kubernetes quantities of bytes."""

from __future__ import annotations

import math
from decimal import Decimal

_BINARY: dict[str, int] = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL: dict[str, int] = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


def to_bytes(quantity: str) -> int:
    """1Gi, 1.5G, 1e9 or 1000000000 as a number of bytes, rounded up."""
    for suffix, factor in (_BINARY | _DECIMAL).items():
        if quantity.endswith(suffix):
            return math.ceil(Decimal(quantity.removesuffix(suffix)) * factor)
    return math.ceil(Decimal(quantity))


def to_quantity(count: int) -> str:
    """The shortest exact form with a binary suffix."""
    for suffix, factor in reversed(_BINARY.items()):
        if count and count % factor == 0:
            return f"{count // factor}{suffix}"
    return str(count)
