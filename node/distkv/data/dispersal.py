"""One value on its coordinator, from its first bytes until its put is decided.

Attempts run until the first of them has k_e + f durable shards. When silence or a lost
connection makes that too slow, another attempt begins under a *new* value id with a
strictly smaller k_e, from the stripes that are still in memory; the older one goes on and
may still win. Nothing was submitted before one has won, so nothing can be half-changed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from distkv.coding.layout import shard_bytes
from distkv.core.configuration import Configuration
from distkv.data.attempt import Attempt, State, Target
from distkv.data.choose import SLOWEST_LINK, Chooser, Measurements
from distkv.data.messages import Refusal
from distkv.data.ports import Dispersed
from distkv.data.source import Source
from distkv.errors import DeadlineExceeded, DiskFull, DistKVError, NoQuorum, NotFormed, full_text
from distkv.ids import Ballot, Member
from distkv.kernel import Future, Kernel, Timer

WINDOW_BYTES = 4 << 20
"""Bytes of an upload that the members it waits for have not been sent yet, at most."""

LOOK_SECONDS = 0.25
"""How often, at least, lines in which bytes stand are looked at."""
GOING_ROUND = 2.5
"""Before so many times what the quick ones took, going round the others would hardly be quicker:
everybody is sent half as much again then, or more."""
_UNKNOWN_LENGTH = 1 << 20
_STALE_RETRY = 0.02


class Inline(NamedTuple):
    """Small enough to go whole through the log; nothing was dispersed."""

    value: bytes


class Aborted(DistKVError):
    """The client went away before its value was complete."""

    code, resp, http = "aborted", "ERR", 400


class Services(Protocol):
    """What a dispersal needs of the node; `disperser.Disperser`."""

    kernel: Kernel
    inline_max: int
    chooser: Chooser
    measurements: Measurements
    full: dict[int, None]
    """Ordinals whose disk is full."""

    def begin(self, dispersal: Dispersal, source: Source, data_shards: int) -> Attempt:
        """A new attempt under a new value id, with every member that is connected."""

    def reachable(self) -> tuple[Configuration, tuple[int, ...]]:
        """Configuration, and ordinals of its members that are connected (own included)."""

    def stamp(self) -> Ballot:
        """Highest ballot known to lead."""

    def line(self, ordinal: int) -> tuple[int, int]:
        """See ports.Outbox; nothing ever stands in line for the own ordinal."""

    def pump(self, attempt: Attempt) -> None:
        """Send what can be sent."""

    def give_up(self, attempt: Attempt) -> None:
        """It was never submitted: its shards are garbage."""

    def settle(self, attempt: Attempt) -> None:
        """An applied entry decided it."""

    def finished(self, dispersal: Dispersal, decided: bool) -> None:
        """Nobody waits for it; it may linger to complete the shards of laggards."""


class Phase(Enum):
    """Where a dispersal is."""

    FILLING = 1
    """No stripe yet."""
    RUNNING = 2
    DONE = 3
    FAILED = 4


class Dispersal:
    """Implements `operations.Upload`; see the module.

    `wanted`: exactly so many data shards, and no hedging: nobody waits for a value that is
    coded anew, so it is better put off than coded worse. 0: as many as serve the client.
    """

    def __init__(self, services: Services, source: Source, wanted: int = 0) -> None:
        self._services = services
        self._kernel = services.kernel
        self._wanted = wanted
        self.source = source
        self.on_resume: Callable[[], None] | None = None
        self.attempts: list[Attempt] = []
        """All under way, newest last; after success only the winner."""
        self.phase = Phase.FILLING
        self._result: Future[Inline | Dispersed] = Future()
        self._deadline: Timer | None = None
        self._timer: Timer | None = None
        self._paused = False
        self._refusers: dict[int, Refusal] = {}
        self._last_rung = False
        self._claimed = False
        self.closed = False

    # -- operations.Upload

    def write(self, piece: bytes) -> bool:
        """Take the next piece; False asks to pause until `on_resume` is called."""
        if self.phase is Phase.FAILED or not piece:
            return True
        before = len(self.source.stripes)
        try:
            self.source.write(piece)
        except DistKVError as error:
            self._fail(error)
            return True
        if len(self.source.stripes) > before:
            self._advance()
        self._paused = self.phase is Phase.RUNNING and self._unsent() > WINDOW_BYTES
        return not self._paused

    def finish(self) -> None:
        """All pieces were written."""
        if self.phase is Phase.FAILED or self.source.finished:
            return
        self.source.finish()
        small = not self._wanted and self.source.length <= self._services.inline_max
        if self.phase is Phase.FILLING and small:
            self.phase = Phase.DONE
            self._result.set_result(Inline(self.source.whole()))
        else:
            self._advance()

    def abort(self) -> None:
        """The client went away; whatever was dispersed becomes garbage."""
        if self.phase is not Phase.DONE:
            self._fail(Aborted("the client went away before its value was complete"))
        elif not self._claimed and not self.closed:
            self.abandon()

    # -- the member

    def outcome(self, deadline: float) -> Future[Inline | Dispersed]:
        """Done once the value is safe. Fails with a DistKVError; nothing was submitted then.

        From here on the caller decides about the value: it ends with `close` or `abandon`.
        """
        self._claimed = True
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._result.done:
            self._deadline = self._kernel.call_at(deadline, self._on_deadline)
        return self._result

    def again(self, deadline: float) -> Future[Inline | Dispersed]:
        """The put was refused at apply: disperse anew, with a fresh stamp and a fresh k_e.

        The refused value id is decided by that: what ruled it out never changes back.
        """
        assert self.phase is Phase.DONE, "only a submitted value can be refused"
        assert not self.closed, "its bytes are gone"
        if isinstance(self._result.result(), Inline):
            return self._result
        for attempt in self.attempts:
            self._services.settle(attempt)
        self.attempts = []
        self._refusers = {}
        self._last_rung = False
        self._result = Future()
        self.phase = Phase.FILLING
        self._advance()
        return self.outcome(deadline)

    def abandon(self) -> None:
        """The value was never submitted, and never will be."""
        for attempt in self.attempts:
            self._services.give_up(attempt)
        self.attempts = []
        self.close()

    def close(self, decided: bool = True) -> None:
        """Nobody waits any more: memory goes once members that lag were sent their shards.

        `decided` false: the outcome is unknown; call `Disperser.decided` when it is known.
        """
        if not self.closed:
            self.closed = True
            self._cancel_timers()
            self._services.finished(self, decided)

    # -- attempts

    def _advance(self) -> None:
        """There are new stripes, or no more will come."""
        if self.phase is Phase.FILLING:
            self.phase = Phase.RUNNING
            self._next(None)
            return
        for attempt in list(self.attempts):
            self._services.pump(attempt)
        self.check()

    def _next(self, below: int | None) -> None:
        """Begin an attempt; with k_e below `below` if that is given."""
        configuration, answering = self._answering()
        if len(answering) < configuration.phase_one:
            self._fail(self._too_few(configuration, len(answering)))
            return
        most = min(configuration.data_shards, len(answering) - configuration.failures)
        if self._wanted and (most < self._wanted or self.attempts):
            self._fail(NoQuorum("members went away while a value was coded anew"))
            return
        if below is not None:
            most = max(1, min(most, below - 1))
        length = self.source.expected or max(self.source.length, _UNKNOWN_LENGTH)
        if self.source.finished:
            length = self.source.length
        data_shards = self._wanted or self._services.chooser.choose(
            length, most, configuration.failures, tuple(answering)
        )
        try:
            attempt = self._services.begin(self, self.source, data_shards)
        except NotFormed as error:
            self._fail(error)
            return
        self.attempts.append(attempt)
        self._services.pump(self.attempts[-1])
        self.check()

    def _answering(self) -> tuple[Configuration, list[int]]:
        for ordinal in self._services.full:
            self._refusers[ordinal] = Refusal.DISK_FULL
        configuration, ordinals = self._services.reachable()
        return configuration, [o for o in ordinals if o not in self._refusers]

    def _too_few(self, configuration: Configuration, answering: int) -> DistKVError:
        text = f"{answering} of {configuration.size} nodes take shards, a write needs "
        text += str(configuration.phase_one)
        full = [o for o, refusal in self._refusers.items() if refusal is Refusal.DISK_FULL]
        if full:
            return DiskFull(f"{text}: {full_text(sorted(full))}")
        return NoQuorum(text)

    def on_stored(self, attempt: Attempt, target: Target) -> None:
        """A member holds its shard durably."""
        self._measure(attempt, target)
        if self.phase is Phase.RUNNING and not self._won():
            self._resume()

    def _measure(self, attempt: Attempt, target: Target) -> None:
        """Time of an acknowledgement; of a late one, at first the time it took at least."""
        if attempt.measurable:
            size = self._shard_bytes(attempt)
            elapsed = self._kernel.now - attempt.started
            self._services.measurements.add(target.member.ordinal, size, elapsed)

    def on_refused(self, attempt: Attempt, target: Target, reason: Refusal) -> None:
        """A member keeps nothing of this attempt."""
        target.state = State.OUT
        target.refusal = reason
        if reason is not Refusal.STALE:
            self._refusers[target.member.ordinal] = reason
        self.check()

    def check(self) -> None:
        """Win, wait, or take the next step down; called after everything that happens."""
        if self.phase is not Phase.RUNNING:
            return
        if self._won():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.attempts:
            self._step_down(self.attempts[-1])
        self._resume()

    def _won(self) -> bool:
        """Whether an attempt has enough durable shards now."""
        for attempt in self.attempts:
            if attempt.stored_count >= attempt.need:
                self._win(attempt, attempt.holders())
                return True
        return False

    def _step_down(self, attempt: Attempt) -> None:
        now = self._kernel.now
        hopeful, earliest, stale = 0, float("inf"), False
        size = self._shard_bytes(attempt)
        if self._look_at_lines(attempt, size):
            earliest = now + LOOK_SECONDS
        for target in attempt.targets.values():
            if target.state is State.STORED:
                hopeful += 1
            elif target.state is State.OUT:
                stale |= target.refusal is Refusal.STALE
            else:
                late = self._late_at(target, size)
                if late > now:
                    hopeful += 1
                    earliest = min(earliest, late)
                elif not target.late:
                    target.late = True
                    self._measure(attempt, target)
        if hopeful >= attempt.need:
            if earliest < float("inf"):
                self._wake_at(earliest)
        elif stale:
            self._restamp(attempt)
        elif attempt.code.data_shards > 1:
            self._next(below=attempt.code.data_shards)
        else:
            self._end_of_ladder(attempt)

    def _restamp(self, attempt: Attempt) -> None:
        """Members applied a barrier above our stamp: as soon as we know of it, begin again."""
        if self._services.stamp() > attempt.stamp:
            self._next(None)
        else:
            self._wake_at(self._kernel.now + _STALE_RETRY)

    def _end_of_ladder(self, attempt: Attempt) -> None:
        configuration, answering = self._answering()
        if len(answering) < configuration.phase_one:
            self._fail(self._too_few(configuration, len(answering)))
        else:
            # Whole copies are under way to members that are connected but slow: giving up
            # now would not make them quicker. The deadline ends the wait.
            self._last_rung = True

    def _late_at(self, target: Target, size: int) -> float:
        """When the silence of `target` is long enough to go round it; never while it waits
        for bytes that the client has yet to send, nor for a value that nobody waits for."""
        if self._wanted:
            return float("inf")
        if target.state is State.SENDING and target.next >= len(self.source.stripes):
            return float("inf")
        usual = self._services.measurements.late_after(target.member.ordinal, size)
        return target.since + max(usual, target.patience)

    def _look_at_lines(self, attempt: Attempt, size: int) -> bool:
        """Whose bytes still stand in line here. As long as those are more members than may be
        slow, the links are full: to go round some would add all the bytes again, so only a
        line that does not move is silence. Fewer are slow by themselves, and gone round once
        that is quicker. `size`: bytes of a shard. False: nothing stands in line."""
        now = self._kernel.now
        waiting: list[tuple[Target, bool, int]] = []
        for target in attempt.targets.values():
            target.patience = 0.0
            sending = target.state is State.SENDING
            last = target.mark + size  # other streams may have their turn before ours
            if not sending and (target.state is not State.SENT or target.moved >= last):
                continue
            taken, standing = self._services.line(target.member.ordinal)
            gone = taken - standing if standing or sending else last
            moves, target.moved = gone > target.moved, max(gone, target.moved)
            if standing and (sending or gone < last):
                waiting.append((target, moves, standing))
            elif moves:
                target.since = now  # it has all of them since the last look
        if len(waiting) > attempt.configuration.failures:
            attempt.crowded_at, until = now, float("inf")
        else:
            until = attempt.started + GOING_ROUND * (attempt.crowded_at - attempt.started)
        for target, moves, standing in waiting:
            if moves and now < until:
                target.since = now
            # A line moves by whole messages, of up to a megabyte.
            target.patience = min(standing / SLOWEST_LINK, max(0.0, until - target.since))
        return bool(waiting)

    def _shard_bytes(self, attempt: Attempt) -> int:
        return shard_bytes(self.source.length, self.source.stripe_bytes, attempt.code.data_shards)

    def _wake_at(self, when: float) -> None:
        self._timer = self._kernel.call_at(when, self.check)

    # -- ends

    def _win(self, attempt: Attempt, holders: tuple[Member, ...]) -> None:
        self.phase = Phase.DONE
        self._cancel_timers()
        for other in self.attempts:
            if other is not attempt:
                self._services.give_up(other)
        self.attempts = [attempt]
        self._result.set_result(
            Dispersed(
                attempt.value_id,
                attempt.code,
                self.source.length,
                self.source.checksum,
                attempt.stamp,
                attempt.configuration.epoch,
                holders,
            )
        )

    def _fail(self, error: DistKVError) -> None:
        if self.phase in (Phase.DONE, Phase.FAILED):
            return
        self.phase = Phase.FAILED
        self._result.set_exception(error)
        self.abandon()
        self._resume()

    def _on_deadline(self) -> None:
        if self._last_rung:
            last = self.attempts[-1]
            self._fail(
                NoQuorum(
                    f"{len(last.holders())} of {last.configuration.size} nodes stored the value "
                    f"before the deadline, {last.need} are needed; the others are silent"
                )
            )
        else:
            self._fail(DeadlineExceeded("the value could not be stored before the deadline"))

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None

    # -- back-pressure

    def _unsent(self) -> int:
        """Bytes that came in and that the slowest member we wait for was not sent yet."""
        if not self.attempts:
            return 0
        attempt = self.attempts[-1]
        sent = sorted((t.next for t in attempt.targets.values()), reverse=True)
        reached = sent[attempt.need - 1] if len(sent) >= attempt.need else 0
        return self.source.length - reached * self.source.stripe_bytes

    def _resume(self) -> None:
        """Let the client go on, at half the window or if nothing matters any more."""
        if self._paused and (self.phase is Phase.FAILED or self._unsent() <= WINDOW_BYTES // 2):
            self._paused = False
            if self.on_resume is not None:
                self.on_resume()


def not_a_member() -> NotFormed:
    """A node that holds no seat coordinates nothing."""
    return NotFormed("this node is not a member of the cluster: it waits to be admitted")
