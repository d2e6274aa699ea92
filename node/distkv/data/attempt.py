"""One try to disperse a value: one value id, one code, one shard to each member that answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distkv.coding.checksum import checksum
from distkv.coding.codec import codec
from distkv.coding.layout import shard_of
from distkv.core.configuration import Configuration
from distkv.data.messages import Code, Refusal, ShardPiece
from distkv.data.source import Source
from distkv.ids import Ballot, Member, ValueId

LAG_STRIPES = 8
"""How far a member that is not needed may lag when a value flows through."""

ENCODED_MAX = 4
"""Coded stripes kept for members that lag; older ones are coded again when their turn comes."""


class State(Enum):
    """How far a member is with its shard."""

    SENDING = 1
    SENT = 2
    """All its pieces left; the acknowledgement is awaited."""
    STORED = 3
    OUT = 4
    """It refused, or its connection is gone."""


@dataclass(slots=True)
class Target:
    """One member that is sent a shard. Times on the kernel's clock, seconds."""

    member: Member
    shard: int
    since: float
    """Start, or the last moment a piece was taken, or of those in line before it one was
    acknowledged: silence counts from here."""
    next: int = 0
    """Next stripe to send."""
    state: State = State.SENDING
    late: bool = False
    """Its silence was measured."""
    refusal: Refusal | None = None
    mark: int = 0
    """Bytes that were taken for this member when its last piece had been."""
    moved: int = 0
    """Of these, bytes that it had acknowledged at the last look."""
    patience: float = 0.0
    """Seconds that its silence must last at least, as of the last look."""


class Attempt:
    """Who has been sent what, and who holds it durably. Sends nothing itself."""

    def __init__(
        self,
        source: Source,
        value_id: ValueId,
        data_shards: int,
        stamp: Ballot,
        configuration: Configuration,
        now: float,
    ) -> None:
        self.source = source
        self.value_id = value_id
        self.code = Code(data_shards, configuration.size, source.stripe_bytes)
        self.stamp = stamp
        self.configuration = configuration
        self.started = self.crowded_at = now
        """`crowded_at`: when more links than may be slow had bytes of it in line, at the last look
        that found that."""
        self.measurable = source.finished
        """All bytes were there at the start, so the time to an acknowledgement says something."""
        self.targets: dict[int, Target] = {}
        self._encoded: dict[int, list[bytes]] = {}

    @property
    def need(self) -> int:
        """k_e + f distinct members with a durable shard make the value safe."""
        return self.code.data_shards + self.configuration.failures

    def add(self, member: Member, now: float) -> Target:
        """Send a shard to `member` too, or (its connection is new) from the start again."""
        target = self.targets.get(member.ordinal)
        if target is None or target.member != member or target.state is not State.STORED:
            shard = shard_of(member.ordinal, self.value_id, self.code.size)
            target = self.targets[member.ordinal] = Target(member, shard, now)
        return target

    def piece(self, target: Target) -> ShardPiece | None:
        """The next piece for `target`, None if no stripe is there for it (yet)."""
        stripe = target.next
        stripes = self.source.stripes
        if stripe >= len(stripes):
            return None
        pieces = self._encoded.get(stripe)
        if pieces is None:
            pieces = codec(self.code.data_shards, self.code.size).encode(stripes[stripe])
            self._encoded[stripe] = pieces
            if len(self._encoded) > ENCODED_MAX:
                del self._encoded[next(iter(self._encoded))]
        piece = pieces[target.shard]
        last = self.source.finished and stripe == len(stripes) - 1
        return ShardPiece(
            self.value_id,
            target.shard,
            stripe,
            len(stripes) if last else 0,
            self.code,
            self.configuration.epoch,
            self.stamp,
            0,
            b"",
            len(stripes[stripe]),
            checksum(piece),
            piece,
        )

    def sent(self, target: Target, now: float) -> None:
        """The piece of `target` was taken by the outbox."""
        target.next += 1
        target.since = now
        if self.source.finished and target.next == len(self.source.stripes):
            target.state = State.SENT

    def trim(self) -> None:
        """Forget coded stripes that every member has been sent."""
        slowest = min(
            (t.next for t in self.targets.values() if t.state is State.SENDING),
            default=len(self.source.stripes),
        )
        for stripe in [s for s in self._encoded if s < slowest]:
            del self._encoded[stripe]
        self.source.release(slowest)

    def leave_behind(self) -> None:
        """Of a flowing value: members that lag far behind those that are needed are sent no
        more of it, or all its bytes would have to wait for them. Repair brings their shard."""
        if not self.source.flowing:
            return
        reached = sorted((t.next for t in self.targets.values()), reverse=True)
        if len(reached) > self.need:
            least = reached[self.need - 1] - LAG_STRIPES
            for target in self.targets.values():
                if target.state is State.SENDING and target.next < least:
                    target.state = State.OUT

    def stored(self, member: Member, shard: int) -> Target | None:
        """An acknowledgement; None if it is not one that counts (again, or of another shard)."""
        target = self.targets.get(member.ordinal)
        if target is None or target.member != member or target.shard != shard:
            return None
        if target.state is State.STORED or not self.source.finished:
            return None
        target.state = State.STORED
        return target

    @property
    def stored_count(self) -> int:
        """Members that hold their shard durably."""
        count = 0
        for target in self.targets.values():
            count += target.state is State.STORED
        return count

    def holders(self) -> tuple[Member, ...]:
        """Members that hold their shard durably, by ordinal."""
        return tuple(
            target.member
            for _, target in sorted(self.targets.items())
            if target.state is State.STORED
        )

    def close(self) -> None:
        """Let go of coded stripes."""
        self._encoded.clear()
