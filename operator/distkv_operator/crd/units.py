"""How sizes and durations look in a manifest: "32Mi", "5m"."""

from __future__ import annotations

from fractions import Fraction

SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(k|Ki|M|Mi|G|Gi|Ti)?$"
DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$"
DURATION_LENGTH_MAX = 24

_SIZES = (("Ti", 1024**4), ("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024))
_DURATIONS = (("h", Fraction(3600)), ("m", Fraction(60)), ("s", Fraction(1)))


def size_text(amount: int) -> str:
    """The shortest exact form: 33554432 is "32Mi"."""
    for unit, factor in _SIZES:
        if amount and amount % factor == 0:
            return f"{amount // factor}{unit}"
    return str(amount)


def duration_text(seconds: float) -> str:
    """The shortest exact form: 300 is "5m", 0.075 is "75ms"."""
    exact = Fraction(str(seconds))
    for unit, factor in _DURATIONS:
        if exact and exact % factor == 0:
            return f"{exact // factor}{unit}"
    if (exact * 1000).denominator == 1:
        return f"{exact * 1000}ms" if exact else "0s"
    return f"{exact * 1_000_000}us"
