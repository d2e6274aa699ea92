"""The driver and a disk that refuses: nothing is lost, nothing piles up."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from distkv.kernel import Kernel
from distkv.member.messages import NotLeader
from distkv.member.output import Outgoing, Output
from distkv.runtime.driver import Driver
from distkv.storage.base import (
    Delete,
    Put,
    StorageError,
    StorageFull,
    StorageOperation,
    Table,
    Usage,
)
from distkv.storage.files import FilesEngine
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Lane

MIB = 1024 * 1024


class Disk(MemoryEngine):
    """Refuses writes while `full`."""

    full = False
    refused = 0
    reserve_bytes = 4 * MIB
    free = 64 * MIB
    asked_for_room = 0

    def make_room(self) -> None:
        self.asked_for_room += 1

    def usage(self) -> Usage:
        return super().usage()._replace(free=self.free)

    def write(self, batch: Sequence[StorageOperation]) -> int:
        if self.full:
            self.refused += 1
            raise StorageFull("no space")
        return super().write(batch)


class Compacted(FilesEngine):
    """Tells when its files are small."""

    def __init__(self, directory: Path, segment_bytes: int, reserve_bytes: int) -> None:
        super().__init__(directory, segment_bytes, reserve_bytes)
        self.small = asyncio.Event()

    def compact_step(self, budget_bytes: int = 0) -> bool:
        more = super().compact_step(budget_bytes)
        if self.usage().on_disk < 50_000:
            self.small.set()
        return more


class OneRow:
    """A member that wants one more row written at every turn."""

    def __init__(self) -> None:
        self.number = 0
        self.row = b""
        self.disk_full = False
        self.has_work = False
        self.starved: dict[int, int] = {}
        self.told = 0
        self.on_work = lambda: None
        self.kernel = Kernel()

    def turn(self, now: float, wall_ms: int) -> Output:
        self.number += 1
        row = Put(Table.META, b"%d" % self.number, self.row)
        return Output(self.number, [row], must_flush=True)

    def write_refused(self) -> None:
        pass

    def fail_waiting(self, now: float) -> list[object]:
        self.told += 1
        return []

    def flushed(self, number: int) -> None:
        pass

    def next_timer(self) -> float:
        return asyncio.get_running_loop().time() + 1000


async def _wakes(driver: Driver, times: int) -> None:
    for _ in range(times):
        driver.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def test_a_full_disk_is_tried_again_by_one_timer_and_no_batch_is_lost() -> None:
    async def run() -> None:
        engine, member = Disk(), OneRow()
        driver = Driver(member, engine, lambda reason: None)  # type: ignore[arg-type]
        timers = 0
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def counted(*arguments: object) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_later(*arguments)  # type: ignore[arg-type]

        loop.call_later = counted  # type: ignore[method-assign, assignment]
        await _wakes(driver, 3)
        engine.full = True
        await _wakes(driver, 50)
        assert driver.blocked
        assert member.disk_full
        assert member.told >= 40
        assert timers == 1
        blocked_at = member.number
        await _wakes(driver, 5)
        assert member.number == blocked_at, "a turn ran before the last one was written"
        engine.full = False
        await _wakes(driver, 3)
        assert not driver.blocked
        assert not member.disk_full
        rows = {int(key) for key, _ in engine.scan(Table.META, limit=10_000)}
        assert rows == set(range(1, member.number + 1))
        await driver.close()

    asyncio.run(run())


def test_the_node_is_read_only_before_the_engine_refuses_consensus() -> None:
    """Else nothing is elected and nothing deleted on a full disk; and a second is a long time."""

    async def run() -> None:
        engine, member = Disk(), OneRow()
        reserve = 8 * MIB
        driver = Driver(member, engine, lambda reason: None, reserve)  # type: ignore[arg-type]
        for free, full in ((12 * MIB, False), (12 * MIB - 1, True), (12 * MIB, False)):
            engine.free = free
            driver.look_at_space()
            assert member.disk_full == full
        engine.free = 11 * MIB
        member.row = bytes(MIB - 1)
        await _wakes(driver, 1)
        assert not member.disk_full
        member.row = b"1"
        await _wakes(driver, 1)
        assert member.disk_full
        await driver.close()

    asyncio.run(run())


def test_the_engine_is_asked_for_room_before_the_node_is_read_only() -> None:
    async def run() -> None:
        engine, member = Disk(), OneRow()
        driver = Driver(member, engine, lambda reason: None, 8 * MIB)  # type: ignore[arg-type]
        for free, asked in ((24 * MIB, 0), (24 * MIB - 1, 1), (MIB, 2), (24 * MIB, 2)):
            engine.free = free
            driver.look_at_space()
            assert engine.asked_for_room == asked
        await driver.close()

    asyncio.run(run())


def test_deleted_rows_give_their_space_back_although_nobody_writes(tmp_path: Path) -> None:
    """A node on a full disk writes nothing that would flush what compaction copied."""

    async def run() -> None:
        engine, member = Compacted(tmp_path, segment_bytes=4096, reserve_bytes=0), OneRow()
        keys = [b"%d" % number for number in range(100)]
        for key in keys:
            engine.write([Put(Table.SHARD, key, bytes(1000)), Put(Table.STATE, key, bytes(100))])
        engine.write([Delete(Table.SHARD, key) for key in keys])
        engine.flush()
        driver = Driver(member, engine, lambda reason: None)  # type: ignore[arg-type]
        driver.attach(object())  # type: ignore[arg-type]
        await asyncio.wait_for(engine.small.wait(), 20)
        assert engine.count(Table.STATE) == len(keys)
        await driver.close()

    asyncio.run(run())


class Clock:
    """A loop in which no time passes and no timer fires."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: object) -> asyncio.Future[None]:
        return asyncio.Future()  # can be cancelled


class Line:
    """A transport that only tells what it is asked."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def send(self, ordinal: int, lane: Lane, payload: bytes, stream: int = 0) -> bool:
        self.said.append("send")
        return True

    def queued(self, ordinal: int, lane: Lane) -> int:
        return 0

    def hold(self) -> None:
        self.said.append("hold")

    def flush(self) -> None:
        self.said.append("leave")


class Talkative(OneRow):
    """One message at every turn."""

    def turn(self, now: float, wall_ms: int) -> Output:
        output = super().turn(now, wall_ms)
        output.messages.append(Outgoing(1, Lane.CONTROL, 0, NotLeader()))
        return output


def test_what_fails_after_a_flush_halts_the_node() -> None:
    """The seat may be taken there, and read a directory that is damaged elsewhere."""

    class Unseated(OneRow):
        def flushed(self, number: int) -> None:
            raise StorageError("the entry accepted in slot 4 is damaged")

    async def run() -> None:
        reasons: list[str] = []
        driver = Driver(Unseated(), Disk(), reasons.append)  # type: ignore[arg-type]
        await _wakes(driver, 3)
        assert reasons == ["StorageError: the entry accepted in slot 4 is damaged"]
        assert driver.closed
        await driver.close()

    asyncio.run(run())


class Referred(Output):
    """May be referred to weakly."""


class Uploading(OneRow):
    """A member that a large value comes to: rows, and pieces for others, and nobody waits yet."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[weakref.ref[Output]] = []

    def turn(self, now: float, wall_ms: int) -> Output:
        self.number += 1
        output = Referred(self.number, [Put(Table.SHARD, b"%d" % self.number, b"piece")])
        self.outputs.append(weakref.ref(output))
        return output


def test_what_was_written_and_sent_is_not_kept_until_somebody_flushes() -> None:
    """A value of 256 MiB is some 500 MB of shards and pieces."""

    async def run() -> None:
        member = Uploading()
        driver = Driver(member, Disk(), lambda reason: None)  # type: ignore[arg-type]
        await _wakes(driver, 5)
        assert driver.flushes == 0
        assert len(member.outputs) >= 5
        assert [reference() for reference in member.outputs] == [None] * len(member.outputs)
        await driver.close()

    asyncio.run(run())


@pytest.mark.parametrize("quick", [True, False])
def test_messages_leave_before_anybody_waits_for_the_disk(quick: bool) -> None:
    async def run() -> None:
        said: list[str] = []
        driver = Driver(Talkative(), Disk(), lambda reason: None)  # type: ignore[arg-type]
        driver.attach(Line(said))
        flusher = driver._flusher
        flusher.quick = lambda written: quick  # type: ignore[method-assign]
        flusher.flush = lambda done, written: said.append("disk")  # type: ignore[method-assign]
        flusher.flush_now = lambda: said.append("disk")  # type: ignore[method-assign, func-returns-value]
        await _wakes(driver, 1)
        assert said[:4] == ["hold", "send", "leave", "disk"]
        assert said.count("leave") == said.count("disk")
        await driver.close()

    asyncio.run(run())


def test_who_is_awake_moves_a_timer_that_is_about_to_fire_for_nothing() -> None:
    async def run() -> None:
        member = OneRow()
        when = 0.0
        member.next_timer = lambda: when  # type: ignore[method-assign]
        driver = Driver(member, Disk(), lambda reason: None)  # type: ignore[arg-type]
        now = asyncio.get_running_loop().time()
        driver._loop = Clock(now)  # type: ignore[assignment]
        for before, after, armed in (
            (0.0005, 0.5, 0.5),
            (0.0005, 0.0006, 0.0005),
            (0.005, 0.5, 0.005),
            (0.3, 0.5, 0.3),
            (0.3, 0.2, 0.2),
            (-0.1, 0.5, 0.5),
        ):
            driver._timer = None
            when = now + before
            driver._arm()
            assert driver._timer_at == when
            when = now + after
            driver._arm()
            assert driver._timer_at == now + armed

    asyncio.run(run())
