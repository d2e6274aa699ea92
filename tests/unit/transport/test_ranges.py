from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distkv.transport.packet import ACK_FRAME, ACK_RUN, ACK_RUNS_LIMIT, expand
from distkv.transport.ranges import RUNS_LIMIT, Received


def decode(frame: bytes, near: int) -> list[tuple[int, int]]:
    _, low, _, run, extra = ACK_FRAME.unpack_from(frame)
    top = expand(low, near)
    bottom = top - run
    runs = [(bottom, top)]
    at = ACK_FRAME.size
    for _ in range(extra):
        gap, run = ACK_RUN.unpack_from(frame, at)
        at += ACK_RUN.size
        high = bottom - gap - 2
        bottom = high - run
        runs.append((bottom, high))
    assert at == len(frame)
    return runs


@given(st.lists(st.integers(0, 80), max_size=80))
def test_numbers_are_seen_once_and_reported(numbers: list[int]) -> None:
    received = Received()
    model: set[int] = set()
    for number in numbers:
        assert received.seen(number) == (number in model)
        if number not in model:
            in_order = number == max(model, default=-1) + 1
            assert received.add(number) == in_order
            model.add(number)
    if model:
        reported = {n for low, high in decode(received.frame(0), 0) for n in range(low, high + 1)}
        assert reported <= model
        if len(decode(received.frame(0), 0)) < ACK_RUNS_LIMIT:
            assert reported == model


def test_memory_is_bounded_and_what_was_forgotten_is_refused() -> None:
    received = Received()
    for number in range(0, 4 * RUNS_LIMIT, 2):
        received.add(number)
    assert received.floor >= 0
    assert received.seen(1), "a number too old to tell must count as seen"
    assert not received.seen(4 * RUNS_LIMIT - 3)
    assert len(decode(received.frame(0), 0)) == ACK_RUNS_LIMIT


@given(st.integers(0, 1 << 40), st.integers(-(1 << 20), 1 << 20))
def test_short_numbers_expand_near_the_largest(largest: int, distance: int) -> None:
    number = max(largest + distance, 0)
    assert expand(number & 0xFFFFFFFF, largest) == number
