"""All values this node is dispersing: value ids, routing of answers, sending, lingering."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkv.coding.layout import STRIPE_BYTES
from distkv.core.configuration import Configuration
from distkv.data.attempt import Attempt, State, Target
from distkv.data.choose import Chooser, Measurements
from distkv.data.dispersal import Dispersal, Phase, not_a_member
from distkv.data.memory import MemoryBudget
from distkv.data.messages import ShardDropped, ShardRefused, ShardStored
from distkv.data.ports import Addressed, Applied, Coordinator, Outbox, stream_of
from distkv.data.sending import Sender
from distkv.data.shards import ShardKeeper
from distkv.data.source import Source
from distkv.ids import Ballot, Member, ValueId
from distkv.kernel import Kernel

LINGER_SECONDS = 10.0
"""How long a decided value stays in memory for members that are still being sent it; after
that they rebuild their shard by themselves."""


@dataclass(slots=True)
class DisperserLimits:
    """Bytes."""

    inline_max: int = 4096
    value_max: int = 256 << 20
    stripe_bytes: int = STRIPE_BYTES


@dataclass(slots=True)
class DisperserCounters:
    """Since the start."""

    attempts: int = 0
    hedged: int = 0
    """Attempts that were begun beside or after another one of the same value."""
    abandoned: int = 0
    by_data_shards: dict[int, int] = field(default_factory=dict)
    piece_bytes: int = 0
    """Bytes of pieces sent, own shard included."""


class Disperser:
    """See the module. Implements `dispersal.Services`."""

    def __init__(
        self,
        kernel: Kernel,
        coordinator: Coordinator,
        applied: Applied,
        outbox: Outbox,
        sender: Sender,
        keeper: ShardKeeper,
        peers: dict[int, int],
        budget: MemoryBudget,
        limits: DisperserLimits,
    ) -> None:
        """`peers`: ordinal -> incarnation of those connected, kept up to date by the owner."""
        self.kernel = kernel
        self.limits = limits
        self.inline_max = limits.inline_max
        self.measurements = Measurements()
        self.chooser = Chooser(self.measurements)
        self.counters = DisperserCounters()
        self._coordinator = coordinator
        self._applied = applied
        self._outbox = outbox
        self._sender = sender
        self._keeper = keeper
        self._peers = peers
        self._budget = budget
        self._counter = 0
        self._undecided: dict[int, None] = {}
        self._attempts: dict[ValueId, tuple[Dispersal, Attempt]] = {}
        self._blocked: dict[int, dict[ValueId, Attempt]] = {}
        self.full: dict[int, None] = {}
        """Ordinals that say their disk is full: nothing is sent there in vain."""

    def upload(self, length: int | None) -> Dispersal:
        """Begin a value. Raises Busy, TooLarge."""
        source = Source(self._budget, self.limits.stripe_bytes, self.limits.value_max, length)
        return Dispersal(self, source)

    def disperse(self, value: bytes) -> Dispersal:
        """Begin a value that is there as a whole. Raises Busy, TooLarge."""
        dispersal = self.upload(len(value))
        dispersal.write(value)
        dispersal.finish()
        return dispersal

    def rewrite(self, wanted: int) -> Dispersal:
        """Begin a stored value anew, with exactly `wanted` data shards; its bytes flow through."""
        source = Source(self._budget, self.limits.stripe_bytes, self.limits.value_max, None, True)
        return Dispersal(self, source, wanted)

    def answering(self) -> tuple[Configuration, int]:
        """The newest layout, and how many of its members would take a shard now."""
        configuration, ordinals = self.reachable()
        return configuration, sum(ordinal not in self.full for ordinal in ordinals)

    # -- value ids and what is settled

    @property
    def settled_counter(self) -> int:
        """Every value id of this boot below it is decided: what a settled entry may say."""
        return next(iter(self._undecided), self._counter + 1)

    @property
    def undecided(self) -> int:
        """Values of which nobody knows yet whether their put took effect, or will."""
        return len(self._undecided)

    def decided(self, value_id: ValueId) -> None:
        """An applied entry decided the put of this value (or it was never submitted)."""
        self._undecided.pop(value_id.counter, None)

    # -- dispersal.Services

    def reachable(self) -> tuple[Configuration, tuple[int, ...]]:
        """See dispersal.Services."""
        configuration = self._applied.configuration
        own = self._coordinator.member
        ordinals = tuple(
            member.ordinal
            for member in configuration.members
            if member == own or self._peers.get(member.ordinal) == member.incarnation
        )
        return configuration, ordinals

    def stamp(self) -> Ballot:
        """See dispersal.Services."""
        return max(self._coordinator.stamp(), self._applied.barrier)

    def line(self, ordinal: int) -> tuple[int, int]:
        """See dispersal.Services."""
        return (0, 0) if ordinal == self._coordinator.member.ordinal else self._outbox.line(ordinal)

    def begin(self, dispersal: Dispersal, source: Source, data_shards: int) -> Attempt:
        """See dispersal.Services."""
        configuration, connected = self.reachable()
        ordinals = tuple(ordinal for ordinal in connected if ordinal not in self.full)
        own = self._coordinator.member
        if not configuration.is_voter(own):
            raise not_a_member()
        self._counter += 1
        value_id = ValueId(own.incarnation, self._coordinator.boot, self._counter)
        self._undecided[self._counter] = None
        now = self.kernel.now
        attempt = Attempt(source, value_id, data_shards, self.stamp(), configuration, now)
        for ordinal in ordinals:
            attempt.add(configuration.members[ordinal], now)
        self._attempts[value_id] = (dispersal, attempt)
        self.counters.attempts += 1
        self.counters.hedged += bool(dispersal.attempts)
        by_code = self.counters.by_data_shards
        by_code[data_shards] = by_code.get(data_shards, 0) + 1
        return attempt

    def pump(self, attempt: Attempt) -> None:
        """See dispersal.Services."""
        moved = True
        while moved:
            moved = False
            for target in list(attempt.targets.values()):
                if target.state is State.SENDING and self._send_next(attempt, target):
                    moved = True
        attempt.leave_behind()
        attempt.trim()

    def _send_next(self, attempt: Attempt, target: Target) -> bool:
        """Send one piece; one stripe for all members before the next, so it is coded once."""
        ordinal = target.member.ordinal
        if target.next >= len(attempt.source.stripes):
            return False
        blocked = self._blocked.get(ordinal)
        if blocked:
            blocked[attempt.value_id] = attempt
            return False
        piece = attempt.piece(target)
        assert piece is not None, "there is a stripe for it"
        if target.member == self._coordinator.member:
            self._keeper.receive(target.member, piece)
        elif self._outbox.send(ordinal, piece, stream_of(attempt.value_id)):
            target.mark = self._outbox.line(ordinal)[0]
        else:
            self._blocked.setdefault(ordinal, {})[attempt.value_id] = attempt
            return False
        self.counters.piece_bytes += len(piece.piece)
        attempt.sent(target, self.kernel.now)
        return True

    def give_up(self, attempt: Attempt) -> None:
        """See dispersal.Services."""
        self.counters.abandoned += 1
        self._release(attempt)
        if attempt.value_id.counter not in self._undecided:
            # It was submitted, and refused at apply: only the log may rule out its shards.
            return
        self.decided(attempt.value_id)
        message = ShardDropped((attempt.value_id,))
        for target in attempt.targets.values():
            if target.state is not State.OUT or target.next:
                ordinal = target.member.ordinal
                self._sender.send(Addressed(ordinal, stream_of(attempt.value_id), message))

    def settle(self, attempt: Attempt) -> None:
        """See dispersal.Services."""
        self._release(attempt)
        self.decided(attempt.value_id)

    def finished(self, dispersal: Dispersal, decided: bool) -> None:
        """See dispersal.Services."""
        if decided:
            for attempt in dispersal.attempts:
                self.decided(attempt.value_id)
        if self._linger(dispersal):
            when = self.kernel.now + LINGER_SECONDS
            self.kernel.call_at(when, lambda: self._let_go(dispersal))

    def _linger(self, dispersal: Dispersal) -> bool:
        """Keep the bytes of a closed value while a member can still be sent its shard, and
        its name while acknowledgements are still to be measured."""
        states = [t.state for attempt in dispersal.attempts for t in attempt.targets.values()]
        if State.SENDING in states and not self._budget.tight:
            return True
        if State.SENT in states:
            dispersal.source.close()
            return True
        self._let_go(dispersal)
        return False

    def _let_go(self, dispersal: Dispersal) -> None:
        for attempt in dispersal.attempts:
            self._release(attempt)
        dispersal.source.close()

    def _release(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.value_id, None)
        for blocked in self._blocked.values():
            blocked.pop(attempt.value_id, None)
        attempt.close()

    # -- what arrives

    def on_stored(self, sender: Member, message: ShardStored) -> None:
        """An acknowledgement; one of another incarnation, value or shard counts for nothing."""
        found = self._attempts.get(message.value_id)
        if found is None:
            return
        dispersal, attempt = found
        target = attempt.stored(sender, message.shard)
        if target is not None:
            dispersal.on_stored(attempt, target)
            self._after_sending(dispersal)

    def on_refused(self, sender: Member, message: ShardRefused) -> None:
        """A member keeps nothing of a value."""
        found = self._attempts.get(message.value_id)
        if found is None:
            return
        dispersal, attempt = found
        target = attempt.targets.get(sender.ordinal)
        if target is not None and target.member == sender and target.state is not State.STORED:
            dispersal.on_refused(attempt, target, message.reason)

    def drained(self, ordinal: int) -> None:
        """Room again for a peer: oldest values first."""
        blocked = self._blocked.pop(ordinal, None)
        if not blocked:
            return
        for value_id, attempt in list(blocked.items()):
            found = self._attempts.get(value_id)
            if found is None:
                continue
            if self._blocked.get(ordinal):
                self._blocked[ordinal][value_id] = attempt
                continue
            target = attempt.targets.get(ordinal)
            while target is not None and target.state is State.SENDING:
                if not self._send_next(attempt, target):
                    break
            attempt.trim()
            self._after_sending(found[0])

    def _after_sending(self, dispersal: Dispersal) -> None:
        if dispersal.closed:
            self._linger(dispersal)
        elif dispersal.phase is Phase.RUNNING:
            dispersal.check()

    def peer_up(self, member: Member) -> None:
        """A connection to a member: it gets its shard of everything under way, from the start."""
        for dispersal, attempt in list(self._attempts.values()):
            target = attempt.targets.get(member.ordinal)
            if target is not None and target.member != member and target.state is State.STORED:
                # Its disk is gone: what it acknowledged counts no more (protocol section 5).
                target.state = State.OUT
                self._after_sending(dispersal)
            if dispersal.source.released:
                continue
            if attempt.configuration.is_voter(member) and dispersal.source.stripes:
                blocked = self._blocked.get(member.ordinal)
                if blocked is not None:
                    blocked.pop(attempt.value_id, None)
                attempt.add(member, self.kernel.now)
                self.pump(attempt)
                self._after_sending(dispersal)

    def peer_down(self, ordinal: int) -> None:
        """A connection is gone, and with it everything not yet acknowledged."""
        self._blocked.pop(ordinal, None)
        for dispersal, attempt in list(self._attempts.values()):
            target = attempt.targets.get(ordinal)
            if target is not None and target.state is not State.STORED:
                target.state = State.OUT
                self._after_sending(dispersal)
