"""Kubernetes quantities of bytes."""

from __future__ import annotations

from decimal import Decimal

_FACTORS = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18, "m": Decimal("0.001"),
}  # fmt: skip


def to_bytes(quantity: str) -> int:
    """1Gi, 1.5G, 1e9 or 1000000000 as a number of bytes, rounded up."""
    for suffix, factor in _FACTORS.items():
        if quantity.endswith(suffix):
            value = Decimal(quantity.removesuffix(suffix)) * factor
            break
    else:
        value = Decimal(quantity)
    return int(value.to_integral_value("ROUND_CEILING"))


def to_quantity(count: int) -> str:
    """The shortest exact form with a binary suffix."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if count and count % _FACTORS[suffix] == 0:
            return f"{count // int(_FACTORS[suffix])}{suffix}"
    return str(count)
