"""The checker of histories finds what is wrong, and nothing else."""

from __future__ import annotations

import pytest

from distkv.simulation.history import INFINITY, Call, Effect, check, check_key


def call(invoked: float, returned: float, effect: Effect) -> Call:
    return Call("c", b"k", invoked, returned, effect)


def put(value: str, **more: object) -> Effect:
    return Effect("put", value)._replace(**more)


def get(value: object) -> Effect:
    return Effect("get", value)


@pytest.mark.parametrize(
    "calls",
    [
        [call(0, 1, put("a")), call(2, 3, get("a"))],
        [call(0, 3, put("a")), call(1, 2, get(None)), call(1, 2, get("a"))],
        [call(0, INFINITY, put("a")), call(1, 2, get(None)), call(3, 4, get("a"))],
        [call(0, INFINITY, put("a")), call(1, 2, get(None)), call(3, 4, get(None))],
        [call(0, 1, put("a")), call(2, 3, put("b", expected="x", met=False)), call(4, 5, get("a"))],
        [call(0, 1, Effect("increment", 1)), call(0, 1, Effect("increment", 2))],
        [call(0, 1, put("a")), call(0, INFINITY, Effect("expire", "a")), call(2, 3, get(None))],
        [call(0, 1, Effect("append", ("x", 1))), call(2, 3, get(("x",)))],
        [call(0, 1, put("a")), call(2, 3, put("b", before="a", existed=True))],
    ],
)
def test_possible_histories_are_accepted(calls: list[Call]) -> None:
    assert check_key(calls) == ""


@pytest.mark.parametrize(
    "calls",
    [
        [call(0, 1, put("a")), call(2, 3, get(None))],
        [call(0, 1, put("a")), call(2, 3, put("b")), call(4, 5, get("a"))],
        [call(0, 9, put("a")), call(1, 2, get("a")), call(3, 4, get(None))],
        [call(0, 1, get("never written"))],
        [call(0, 1, Effect("increment", 1)), call(2, 3, Effect("increment", 1))],
        [call(0, INFINITY, Effect("increment")), call(2, 3, get(2))],
        [call(0, 1, put("a")), call(2, 3, put("b", expected="a", met=False))],
        [call(0, 1, put("a")), call(2, 3, put("b", before=None))],
        [call(0, 1, put("a")), call(2, 3, put("b", existed=False))],
        [call(0, 1, Effect("append", ("x", 1))), call(2, 3, get(("x", "x")))],
        [
            call(0, 1, put("a")),
            call(0, INFINITY, Effect("expire", "a")),
            call(2, 3, get(None)),
            call(4, 5, get("a")),
        ],
    ],
)
def test_impossible_histories_are_found(calls: list[Call]) -> None:
    assert "no order explains" in check_key(calls)
    assert check(calls) == ([check_key(calls)], 0)
