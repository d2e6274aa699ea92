"""Worlds whose owner wants other layouts meanwhile: nothing breaks."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from scenarios.story import Story
from simulation.full.mutations import installed

from distkv.local.ask import Answer
from distkv.local.directory import Layout
from distkv.member import layouts
from distkv.member.soundness import NotYet
from distkv.simulation.full_world import CALM, World
from distkv.simulation.runner import Scenario, run_many

CHUNK = 15
CHUNKS = 3
LONG_CHUNK = 50


def broken(first: int, count: int) -> list[tuple[int, str]]:
    seeds = range(first, first + count)
    results = run_many([Scenario(seed, layouts=True) for seed in seeds])
    assert sum(r.layouts for r in results) > 0, "no layout changed"
    return [(r.scenario.seed, r.error) for r in results if r.error]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_world_breaks(chunk: int) -> None:
    assert broken(1 + chunk * CHUNK, CHUNK) == []


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", range(8))
def test_no_world_breaks_in_a_long_campaign(chunk: int) -> None:
    assert broken(500_000 + chunk * LONG_CHUNK, LONG_CHUNK) == []


def three_and_two_to_four_and_two_to_two_and_one(seed: int) -> bool:
    """While nodes die. Whether the first change was complete when the second was ordered."""
    faults = CALM._replace(
        late_max=0.02, crash=0.6, kill_leader=0.3, crash_at_flush=0.002, relayout=1e-9, duration=9.0
    )
    world = World(seed, (3, 2), faults)
    owner = world.layouts
    owner.turn_back = 0.0
    complete = False

    def second() -> None:
        nonlocal complete
        if owner.done or world.now > 6.0:
            complete = owner.done
            owner.order(Layout(2, 1))
        else:
            world.after(0.1, second)

    def first() -> None:
        owner.order(Layout(4, 2))
        second()

    world.after(1.5, first)
    world.run()
    assert owner.files.identity().layout == Layout(2, 1)
    assert [world.checker.layouts.write_epoch.plain[1:3], len(world.hosts)] == [(2, 1), 3]
    assert world.checker.layouts.changes >= (2 if complete else 1)
    assert world.checker.layouts.retired == world.checker.layouts.changes
    return complete


def test_three_and_two_to_four_and_two_to_two_and_one_while_nodes_die() -> None:
    complete = [three_and_two_to_four_and_two_to_two_and_one(seed) for seed in range(6)]
    assert sum(complete) >= 3, "the second change was to follow the first, not to break it off"


def layout_after_a_late_request(mutation: str) -> tuple[int, int]:
    """The owner asks for 2 + 1 and is not heard, turns back to 3 + 2 until all is done; then
    its first request arrives."""
    with ExitStack() as stack:
        if mutation:
            stack.enter_context(installed(mutation))
        world = World(1, (3, 2), CALM._replace(relayout=1e-9))
        world.begin()
        world.healing = True  # no request is lost but this one
        owner, late = world.layouts, []
        ask = owner.ask_admin

        async def unheard(ordinal: int, method: str, path: str, body: Any = None) -> Answer:
            if method == "GET" or late:
                return await ask(ordinal, method, path, body)
            late.append((world.hosts[ordinal], json.dumps(body)))
            world.after(0.0, lambda: owner.order(Layout(3, 2)))
            return Answer(0, "timed out")

        owner.ask_admin = unheard  # type: ignore[method-assign]
        owner.start()
        owner.order(Layout(2, 1))
        assert world.run_until(lambda: bool(late) and not owner.why(), 60.0)
        host, request = late[0]
        owner._arrive(host, "POST", request)
        world.run_until(lambda: False, 5.0)
        newest = world.checker.layouts.write_epoch
        return newest.data_shards, newest.parity_shards


def test_a_late_request_does_not_come_true_when_its_owner_has_turned_back() -> None:
    assert layout_after_a_late_request("") == (3, 2)


@pytest.mark.parametrize("mutation", ["a_late_request_comes_true", "the_earlier_push_is_forgotten"])
def test_known_mistakes_let_a_late_request_come_true(mutation: str) -> None:
    assert layout_after_a_late_request(mutation) == (2, 1)


@pytest.mark.parametrize("lost", [[], [3, 4]])
def test_a_layout_that_cannot_spare_those_just_lost_is_refused(lost: list[int]) -> None:
    """A connection still counts as up, and with it four. Had it been taken, nobody could be elected
    any more: four of five are needed under 4+1."""
    story = Story()
    story.tell("cluster 3+2")
    story.tell("lead 0")
    story.tell("run 3")
    leader = story.host("0")
    assert leader.member is not None
    seat = leader.member.seat
    assert seat is not None
    for ordinal in lost:
        story.tell(f"wipe {ordinal}")
    story.tell("run 0.2")
    assert {3, 4} & set(leader.member.peers.up), "it was noticed before"
    members = seat.machine.configuration.members
    if not lost:
        assert not layouts.change(seat, "owner", 4, 1, members)
        return
    with pytest.raises(NotYet, match=r"start nodes \[3, 4\] first"):
        layouts.change(seat, "owner", 4, 1, members)
