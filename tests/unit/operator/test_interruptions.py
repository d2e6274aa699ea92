"""Every call of every story is broken off once: it ends the same.

`fail`: nobody answers this call, nor the gate's repetitions of it. `crash`: it is carried out, and
the operator dies; a new one goes on with what the world has. `lost answer`: it is carried out, and
nobody ever hears of it.

Every write and every command to a node is broken off in the quick tests; of the readings a fourth,
others in each round of a history. The long tests break off all of them.

A history is played whole once, and the scene is kept at the beginning of each round; so breaking
a call off plays that round and what comes after it. Scenes that are equal have the same future:
where breaking off two calls comes to the same, the future is played once.
"""

from __future__ import annotations

import asyncio
import bisect
import copy
import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from unit.operator.stories import (
    NAME,
    ROUNDS_MAX,
    STORIES,
    Clock,
    Crash,
    changed,
    check,
    cluster,
    conditions,
    founded,
    is_ready,
    operator,
)
from unit.operator.world import NAMESPACE, World

from distkv_operator.handlers.reconcile import Reconciler
from distkv_operator.kube import gate
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.transport import Request, Unreachable

pytestmark = pytest.mark.timeout(900)
"""Twenty seconds of a processor each; a machine that does other things takes its time."""

MODES = (
    "fail",
    "crash",
    "lost answer",
    pytest.param("fail all", marks=pytest.mark.long),
    pytest.param("crash all", marks=pytest.mark.long),
)
READINGS = 4
"""The quick tests break off one of so many readings."""
Until = Callable[[World], bool]


@dataclass
class Interruption:
    """At call `at`: see the module."""

    at: int
    mode: str
    left: int = 1
    what: tuple[str, str] = ("", "")

    def before(self, number: int, request: Request) -> None:
        what = (request.method, request.url)
        if self.mode == "fail" and number == self.at:
            self.left, self.what = gate.ATTEMPTS, what
        if self.left and what == self.what:
            self.left -= 1
            raise Unreachable("cut off")

    def after(self, number: int, request: Request) -> None:
        if number == self.at and self.mode == "crash":
            raise Crash
        if number == self.at and self.mode == "lost answer":
            raise Unreachable("the answer was lost")


@dataclass
class Scene:
    """The world, and the operator in it with what it remembers."""

    world: World
    clock: Clock
    acting: Reconciler
    cut: Interruption | None = None

    async def round(self) -> bool:
        """One reconcile; whether nothing was left to do. A crash makes a new operator."""
        self.world.settle()
        self.clock.now += datetime.timedelta(seconds=10)
        try:
            following = await self.acting.reconcile(NAMESPACE, NAME)
        except Crash:
            self.acting = operator(self.world, self.clock)
        except ApiError:
            pass
        else:
            return following.seconds >= 15
        return False

    def copy(self) -> Scene:
        """Another that goes its own way. What the operator remembers is never changed in place."""
        world, clock = copy.deepcopy((self.world, self.clock))
        acting = operator(world, clock)
        acting._executor._applied |= self.acting._executor._applied
        acting._known |= self.acting._known
        return Scene(world, clock, acting)

    def interrupt(self, cut: Interruption) -> None:
        self.cut = cut
        self.world.before, self.world.after = cut.before, cut.after

    def key(self) -> str:
        """Equal for scenes with an equal future. Events are not looked at by anybody."""
        world = self.world
        objects = {name: o for name, o in world.objects.items() if name[0] != "events"}
        nodes = {name: value for name, value in vars(world.nodes).items() if name != "world"}
        memory = (self.acting._executor._applied, self.acting._known)
        left = None if self.cut is None or not self.cut.left else (self.cut.left, self.cut.what)
        parts: tuple[Any, ...] = (
            objects,
            world.intents,
            world.hosts,
            world.numbers,
            world.log,
            nodes,
        )
        return repr((*parts, self.clock.now, memory, left))


@dataclass
class History:
    """A story played without interruption, and the futures that are known to end well."""

    until: Until
    check: Callable[[World], None]
    rounds: list[tuple[int, Scene]] = field(default_factory=list)
    """Calls made before each round, and the scene then."""
    calls: tuple[str, ...] = ()
    """The method of each call."""
    known: set[str] = field(default_factory=set)

    async def play(self, scene: Scene) -> None:
        """To its end; raises AssertionError if that is another than it should be."""
        for _ in range(ROUNDS_MAX):
            key = scene.key()
            if key in self.known:
                return
            self.known.add(key)
            if await scene.round() and self.until(scene.world):
                self.check(scene.world)
                return
        pytest.fail(f"not there after {ROUNDS_MAX} rounds: {conditions(scene.world)}")

    async def play_whole(self, scene: Scene) -> None:
        """Without interruption."""
        scene.world.calls.clear()
        done = False
        while not done:
            assert len(self.rounds) < ROUNDS_MAX, conditions(scene.world)
            self.rounds.append((len(scene.world.calls), scene.copy()))
            done = await scene.round() and self.until(scene.world)
        self.check(scene.world)
        self.calls = tuple(method for method, _ in scene.world.calls)

    async def play_interrupted(self, at: int, mode: str) -> None:
        """Broken off at call `at`."""
        scene = next(s for calls, s in reversed(self.rounds) if calls <= at).copy()
        cut = Interruption(at, mode)
        scene.interrupt(cut)
        await scene.round()
        assert len(scene.world.calls) > at, "the call was not made again"
        cut.at = -1
        await self.play(scene)

    def points(self, mode: str) -> Iterator[int]:
        """The calls to break off."""
        begins = [calls for calls, _ in self.rounds]
        for at, method in enumerate(self.calls):
            number = bisect.bisect_right(begins, at)
            if method == "GET" and mode == "lost answer":
                continue  # for whoever only reads, that is `fail`
            if method == "GET" and not mode.endswith(" all") and (at + number) % READINGS:
                continue
            yield at


def interrupt_every_call(history: History, scene: Scene, mode: str) -> None:
    async def go() -> None:
        await history.play_whole(scene)
        for at in history.points(mode):
            try:
                await history.play_interrupted(at, mode.removesuffix(" all"))
            except (AssertionError, pytest.fail.Exception) as failure:
                raise AssertionError(f"broken off at call {at} ({mode}): {failure}") from failure

    asyncio.run(go())


def scene_of(world: World, clock: Clock) -> Scene:
    return Scene(world, clock, operator(world, clock))


@pytest.mark.parametrize("mode", MODES)
def test_founding_ends_the_same_wherever_it_is_interrupted(mode: str) -> None:
    def founded_well(world: World) -> None:
        world.nodes.worst = 0
        check(world, STORIES["status lost"])

    world = World()
    world.put("distkvclusters", cluster())
    interrupt_every_call(History(is_ready, founded_well), scene_of(world, Clock()), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_the_same_wherever_it_is_interrupted(name: str, mode: str) -> None:
    story = STORIES[name]
    world, clock = asyncio.run(founded())
    story.change(world)
    history = History(changed(story), lambda world: check(world, story))
    interrupt_every_call(history, scene_of(world, clock), mode)
