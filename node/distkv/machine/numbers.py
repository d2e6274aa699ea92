"""Integers and decimal numbers in values, as Redis reads and prints them.

Integers: what Redis's string2ll takes (no plus sign, no leading zeros, no blanks, 64 bits
signed). Decimal numbers: the range of an 80-bit long double, printed with 17 places and
without trailing zeros, like INCRBYFLOAT; computed with `decimal`, because every node must
get the same digits.
"""

from __future__ import annotations

import decimal
import re

INTEGER_BYTES_MAX = 20
DECIMAL_BYTES_MAX = 5120
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_INFINITE = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

NOT_AN_INTEGER = "value is not an integer or out of range"
OVERFLOW = "increment or decrement would overflow"
NOT_A_FLOAT = "value is not a valid float"
NOT_FINITE = "increment would produce NaN or Infinity"

# A long double ends near 1.19e4932; the precision holds all its digits and 17 places.
_LONG_DOUBLE = decimal.Context(
    prec=4960,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-4951,
    Emax=4931,
    capitals=1,
    clamp=0,
    traps=[],
)
_WIDE = decimal.Context(
    prec=4980,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-9999,
    Emax=9999,
    capitals=1,
    clamp=0,
    traps=[],
)
_PLACES = decimal.Decimal(1).scaleb(-17)


class NumberError(Exception):
    """The message is the client's."""


def add_integer(old: bytes, delta: int) -> int:
    """old + delta. Raises NumberError."""
    if not _INTEGER.fullmatch(old):
        raise NumberError(NOT_AN_INTEGER)
    number = int(old)
    if not _LOWEST <= number <= _HIGHEST:
        raise NumberError(NOT_AN_INTEGER)
    if not _LOWEST <= number + delta <= _HIGHEST:
        raise NumberError(OVERFLOW)
    return number + delta


def add_decimal(old: bytes, delta: bytes) -> bytes:
    """old + delta, printed without trailing zeros. Raises NumberError."""
    total = _LONG_DOUBLE.add(_decimal(old), _decimal(delta))
    if not total.is_finite():
        raise NumberError(NOT_FINITE)
    text = format(_WIDE.quantize(total, _PLACES), "f").rstrip("0").rstrip(".")
    return b"0" if text in ("-0", "0", "") else text.encode()


def _decimal(text: bytes) -> decimal.Decimal:
    if _INFINITE.fullmatch(text):
        return decimal.Decimal("-Infinity" if text[:1] == b"-" else "Infinity")
    if len(text) > DECIMAL_BYTES_MAX or not _DECIMAL.fullmatch(text):
        raise NumberError(NOT_A_FLOAT)
    number = _LONG_DOUBLE.create_decimal(text.decode())
    if not number.is_finite():
        raise NumberError(NOT_A_FLOAT)
    return number
