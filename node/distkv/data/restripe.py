"""Re-striping: coding stored values anew, as the newest layout wants them.

A value that was written while members were down has fewer data shards than it should, and
after a change of layout every value is of an old epoch. Each is read stripe by stripe,
dispersed again under a new value id, and put in its place by a command that compares and
sets the value id: it changes neither version nor expiry, and loses against any other write.
The old shards go after their grace, like those of every superseded value.

Each record is one member's work: the one of those that answer which draws the highest number
for it (rendezvous hashing; Thaler and Ravishankar 1998). Members that see different peers may
do the same one twice, which costs bytes and nothing else.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from distkv.data.census import Census, record_of
from distkv.data.dispersal import Dispersal, Inline, Phase
from distkv.data.disperser import Disperser
from distkv.data.losses import Losses
from distkv.data.pace import Pace
from distkv.data.ports import Applied, Coordinator, Dispersed
from distkv.data.reader import Reader
from distkv.errors import DistKVError
from distkv.ids import ValueId
from distkv.kernel import Future, Kernel, Task, TimedOut
from distkv.machine.interface import Named, Record, Superseded

_LONG = 3600.0


@dataclass(slots=True)
class RestripeLimits:
    """Seconds, and how much at once."""

    settle_seconds: float = 10.0
    """A value this young is left alone: what is written again and again need not be coded
    twice each time."""
    pause_seconds: float = 1.0
    """Between two looks at what there is to do."""
    retry_seconds: float = 30.0
    """Until all records are looked at again, if some could not be done."""
    patience_seconds: float = 30.0
    """A value is put off when it waits this long for others: how long all of it takes is up to
    the rate and the network, and what was moved of it by then would be moved again."""
    slowest: float = 128 << 10
    """What was sent may stand in line for slow links and disks: a second for each so many
    bytes, besides."""
    together: int = 4
    """Values under way at once: one alone would mostly wait for disks."""
    records_per_step: int = 256
    step_seconds: float = 0.01
    young: int = 65536


@dataclass(slots=True)
class RestripeProgress:
    """Of this node, since its start."""

    done: int = 0
    done_bytes: int = 0
    """Bytes of the values."""
    lost_races: int = 0
    """Another write, or another layout, came first."""
    failed: int = 0
    """Tries that were put off: too few members, shards or memory."""


class Restriper:
    """See the module. `start` once the node serves."""

    def __init__(
        self,
        kernel: Kernel,
        applied: Applied,
        coordinator: Coordinator,
        disperser: Disperser,
        reader: Reader,
        pace: Pace,
        peers: dict[int, int],
        losses: Losses,
        limits: RestripeLimits | None = None,
    ) -> None:
        """`peers`: ordinal -> incarnation of those connected, kept up to date by the owner."""
        self.limits = limits or RestripeLimits()
        self.progress = RestripeProgress()
        self.census = Census(kernel, applied)
        self._kernel = kernel
        self._applied = applied
        self._own = coordinator.member
        self._coordinator = coordinator
        self._disperser = disperser
        self._reader = reader
        self._pace = pace
        self._peers = peers
        self._losses = losses
        self._young: deque[tuple[float, ValueId]] = deque()
        self._too_young: dict[ValueId, None] = {}
        self._pass_due = False
        self._woken: Future[None] = Future()
        self.tasks: list[Task[None]] = []

    def start(self) -> None:
        """Begin; runs until `stop`."""
        if not self.tasks:
            self.tasks = [self._kernel.spawn(self._run())]

    def stop(self) -> None:
        """End; nothing needs to be saved."""
        for task in self.tasks:
            task.cancel()

    # -- what the log says

    def named(self, event: Named) -> None:
        """A record names a value."""
        if not self.census.named(event):
            return
        if len(self._young) >= self.limits.young:
            self._pass_due = True
            return
        self._young.append((self._kernel.now + self.limits.settle_seconds, event.value_id))
        self._too_young[event.value_id] = None
        if len(self._young) == 1:
            self._woken.set_result(None)

    def superseded(self, event: Superseded) -> None:
        """A value lost its name."""
        self.census.superseded(event)
        if not self.census.known:
            self._woken.set_result(None)

    def layout_changed(self) -> None:
        """Members or layout are others now, or the state jumped, or more of it is readable."""
        self.census.restart()
        self._woken.set_result(None)

    def hurry(self) -> None:
        """A member came or went: what could not be improved may be now, or falls to another."""
        self._pass_due = True
        self._woken.set_result(None)

    @property
    def seconds_left(self) -> float | None:
        """Until every value is coded as it should be, at the present rate; None: not known."""
        if not self.census.known:
            return None
        return self.census.meter.seconds_left(self._kernel.now, self.census.bytes)

    # -- passes

    async def _run(self) -> None:
        limits, census = self.limits, self.census
        while True:
            self._woken = Future()
            if not census.known:
                if not await census.survey(limits.records_per_step, limits.step_seconds):
                    continue
                self._pass_due = True
            await self._ripe()
            if self._pass_due and census.records > 0:
                failed = self.progress.failed
                self._pass_due = False
                await self.pass_once()
                self._pass_due |= self.progress.failed > failed
            await self._kernel.sleep(limits.pause_seconds)
            with suppress(TimedOut):
                await self._kernel.within(self._kernel.now + self._rest(), self._woken)

    def _rest(self) -> float:
        """How long there is nothing to do unless somebody wakes us, seconds."""
        rest = _LONG
        if self.census.records > 0:
            rest = self.limits.retry_seconds
            self._pass_due |= self._most() == self._applied.configuration.data_shards
        if self._young:
            rest = min(rest, self._young[0][0] - self._kernel.now)
        return max(0.0, rest)

    async def _ripe(self) -> None:
        """Values that were named a while ago, without looking at all others."""
        ripe: deque[ValueId] = deque()
        while self._young and self._young[0][0] <= self._kernel.now:
            value_id = self._young.popleft()[1]
            self._too_young.pop(value_id, None)
            ripe.append(value_id)
        await self._all(ripe)

    async def pass_once(self) -> int:
        """Look at every record once and do the own part; how many were done."""
        done, before = self.progress, self.progress.done
        start = b""
        while self._most() and self.census.records > 0:
            page = self._applied.values(start, self.limits.records_per_step)
            await self._all(map(ValueId.unpack, page))
            if len(page) < self.limits.records_per_step:
                break
            start = page[-1] + b"\0"
            await self._kernel.sleep(self.limits.step_seconds)
        return done.done - before

    async def _all(self, value_ids: Iterable[ValueId]) -> None:
        todo = deque(v for v in value_ids if self._mine(v))
        workers = [
            self._kernel.spawn(self._work(todo))
            for _ in range(min(self.limits.together, len(todo)))
        ]
        for worker in workers:
            await worker

    async def _work(self, todo: deque[ValueId]) -> None:
        while todo:
            await self.restripe(todo.popleft())

    def _most(self) -> int:
        """Data shards that a value could get now; 0: too few members answer."""
        configuration, answering = self._disperser.answering()
        if answering < configuration.phase_one or not configuration.is_voter(self._own):
            return 0
        return min(configuration.data_shards, answering - configuration.failures)

    def improves(self, record: Record) -> bool:
        """Whether coding it anew, now, brings it nearer to what the layout wants."""
        most = self._most()
        older = record.epoch != self._applied.configuration.epoch
        return most > 0 and (older or most > record.data_shards)

    def _mine(self, value_id: ValueId) -> bool:
        """Whether it wants coding anew, that would help now, and it falls to this member."""
        if value_id in self._too_young or value_id in self._losses:
            return False
        record = record_of(self._applied, value_id)[1]
        if record is None or not self.census.wants(record) or not self.improves(record):
            return False
        return self._chosen(value_id) == self._own.ordinal

    def _chosen(self, value_id: ValueId) -> int:
        packed = value_id.pack()
        up = [
            member.ordinal
            for member in self._applied.configuration.members
            if member == self._own or self._peers.get(member.ordinal) == member.incarnation
        ]
        return max(up, key=lambda ordinal: (zlib.crc32(packed + bytes([ordinal])), ordinal))

    # -- one value

    async def restripe(self, value_id: ValueId) -> bool:
        """Code one value anew. False: not now, or no longer needed."""
        key, record = record_of(self._applied, value_id)
        if key is None or record is None:
            return False
        if not self.census.wants(record) or not self.improves(record):
            return False
        dispersal = self._disperser.rewrite(self._most())
        submitted = False
        try:
            dispersed = await self._disperse(dispersal, record)
            if dispersed is None:
                self.progress.lost_races += 1
                return False
            submitted = True
            placed = await self._coordinator.restripe(key, value_id, dispersed, self._deadline())
        except (DistKVError, TimedOut):
            self.progress.failed += 1
            return False
        finally:
            if submitted:
                dispersal.close()
            else:
                dispersal.abandon()
        if placed:
            self.progress.done += 1
            self.progress.done_bytes += record.length
        else:
            self.progress.lost_races += 1
        return placed

    def _deadline(self) -> float:
        """Of whatever is waited for next."""
        return self._kernel.now + self.limits.patience_seconds

    async def _disperse(self, dispersal: Dispersal, record: Record) -> Dispersed | None:
        """Read it and disperse it, a few stripes at a time. None: it is for nothing by now."""
        assert record.value_id is not None
        configuration = self._applied.configuration
        room: Future[None] = Future()

        def resume() -> None:
            room.set_result(None)

        dispersal.on_resume = resume
        moved = 1 + record.size / record.data_shards
        stream = self._reader.stream(record, self.limits.patience_seconds)
        try:
            while dispersal.phase is not Phase.FAILED and (part := await stream.take()):
                room = Future()
                if not dispersal.write(part):
                    await self._kernel.within(self._deadline(), room)
                await self._pace.spend(len(part) * moved)
                named = self._applied.key_of(record.value_id) is not None
                if not named or self._applied.configuration != configuration:
                    return None
        finally:
            stream.close()
        dispersal.finish()
        longer = record.length / self.limits.slowest
        result = await dispersal.outcome(self._deadline() + longer)
        assert not isinstance(result, Inline), "a value coded anew is never inline"
        return result
