"""Decimal numbers as Redis prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distkv.machine.numbers import NOT_A_FLOAT, NOT_FINITE, NumberError, add_decimal, add_integer


@pytest.mark.parametrize(
    ("old", "delta", "new"),
    [
        (b"10.50", b"0.1", b"10.6"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"3", b"-3", b"0"),
        (b"-1", b"0.5", b"-0.5"),
        (b"-0", b"0", b"0"),
        (b".5", b"+1.", b"1.5"),
        (b"0.1", b"0.2", b"0.3"),
        (b"1e-18", b"0", b"0"),
        (b"-1e-18", b"0", b"0"),
        (b"6e-18", b"0", b"0.00000000000000001"),
        (b"100", b"0", b"100"),
        (b"9007199254740993", b"0", b"9007199254740993"),
        (b"1e30", b"1", b"1000000000000000000000000000001"),
    ],
)
def test_sums(old: bytes, delta: bytes, new: bytes) -> None:
    assert add_decimal(old, delta) == new


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" 1", b"1 ", b"abc", b"0x10", b"1_000", b"nan", b"1e", b".", b"1\n", b"--1"),
        *(b"1e99999", b"1e-99999x", "\u0661".encode(), b"1" * 5121, b"\xff"),
    ],
)
def test_not_numbers(text: bytes) -> None:
    for old, delta in ((text, b"1"), (b"1", text)):
        with pytest.raises(NumberError, match=NOT_A_FLOAT):
            add_decimal(old, delta)


@pytest.mark.parametrize(
    ("old", "delta"),
    [(b"inf", b"1"), (b"1", b"-Infinity"), (b"inf", b"-inf"), (b"9e4931", b"9e4931")],
)
def test_not_finite(old: bytes, delta: bytes) -> None:
    with pytest.raises(NumberError, match=NOT_FINITE):
        add_decimal(old, delta)


@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15), st.integers(0, 17))
def test_sums_are_exact(a: int, b: int, places: int) -> None:
    def text(number: int) -> bytes:
        return b"%de-%d" % (number, places)

    total = add_decimal(text(a), text(b))
    whole, _, fraction = total.partition(b".")
    assert len(fraction) <= 17
    assert not fraction.endswith(b"0")
    sign = -1 if whole.startswith(b"-") else 1
    digits = int(whole.lstrip(b"-") + fraction.ljust(17, b"0"))
    assert sign * digits == (a + b) * 10 ** (17 - places)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_integers(a: int, b: int) -> None:
    if -(2**63) <= a + b < 2**63:
        assert add_integer(b"%d" % a, b) == a + b
    else:
        with pytest.raises(NumberError, match="overflow"):
            add_integer(b"%d" % a, b)
