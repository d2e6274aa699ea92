"""Sessions and the choice of a node."""

from __future__ import annotations

from typing import Any

import pytest

from distkv.errors import UnknownSession
from distkv.gateway.nodes import Nodes
from distkv.gateway.options import GatewayOptions
from distkv.gateway.sessions import Session, SessionKeeper, SessionOpened


def test_low_is_the_lowest_number_not_answered() -> None:
    session = Session(b"s" * 12)
    assert session.low == 1
    numbers = [session.take() for _ in range(4)]
    assert numbers == [1, 2, 3, 4]
    session.done(2)
    assert session.low == 1
    session.done(1)
    assert session.low == 3
    session.done(3)
    session.done(4)
    assert session.low == 5


def test_one_session_is_opened_for_all_who_wait_and_another_when_it_is_forgotten() -> None:
    asked: list[tuple[bytes, SessionOpened]] = []
    keeper = SessionKeeper(lambda identity, opened: asked.append((identity, opened)))
    told: list[BaseException | None] = []
    for _ in range(3):
        keeper.when_open(told.append)
    assert len(asked) == 1
    failure = RuntimeError("no")
    asked[0][1](failure)
    assert told == [failure] * 3
    keeper.when_open(told.append)
    assert asked[1][0] != asked[0][0]
    asked[1][1](None)
    assert told[-1] is None
    assert keeper.current is not None
    assert keeper.current.identity == asked[1][0]
    keeper.forget(b"another")
    assert keeper.current is not None
    keeper.forget(asked[1][0])
    keeper.when_open(told.append)
    assert len(asked) == 3


def test_a_session_that_ended_before_it_was_open_is_replaced_by_another() -> None:
    asked: list[tuple[bytes, SessionOpened]] = []
    keeper = SessionKeeper(lambda identity, opened: asked.append((identity, opened)))
    told: list[BaseException | None] = []
    keeper.when_open(told.append)
    asked[0][1](UnknownSession("it has ended"))
    assert told == []
    assert asked[1][0] != asked[0][0]
    asked[1][1](None)
    assert told == [None]
    assert keeper.current is not None
    assert keeper.current.identity == asked[1][0]


class Link:
    def __init__(self, **state: Any) -> None:
        self.connected = self.serving = True
        self.in_flight = 0
        self.latency = 0.001
        self.__dict__.update(state)


def choose(links: list[Link], exclude: tuple[Link, ...] = ()) -> dict[Link | None, int]:
    nodes: Any = Nodes.__new__(Nodes)
    nodes.links = links
    nodes._in_flight_max = 100
    nodes._random = __import__("random").Random(1)
    counts: dict[Link | None, int] = {}
    for _ in range(300):
        node = nodes.pick(exclude)
        counts[node] = counts.get(node, 0) + 1
    return counts


def test_the_less_busy_and_the_quicker_are_chosen() -> None:
    free, busy, slow = Link(), Link(in_flight=20), Link(latency=0.5)
    assert choose([free, busy]) == {free: 300}
    assert choose([free, slow]) == {free: 300}
    counts = choose([free, busy, slow])
    assert counts[free] > counts.get(busy, 0) > 0
    assert slow not in counts


def test_who_does_not_serve_is_asked_last_and_who_is_full_or_gone_never() -> None:
    ready, waiting = Link(in_flight=50), Link(serving=False)
    full, gone = Link(in_flight=100), Link(connected=False)
    assert choose([ready, waiting, full, gone]) == {ready: 300}
    assert choose([ready, waiting, full, gone], (ready,)) == {waiting: 300}
    assert choose([full, gone]) == {None: 300}


def test_options_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"gateway\.nodes is empty"):
        GatewayOptions(())
