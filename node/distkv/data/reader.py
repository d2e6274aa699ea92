"""Reads of coded values: whole, or stripe by stripe for a client that is slower than we are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from distkv.coding.checksum import checksum, extend
from distkv.coding.codec import CodingError
from distkv.data.arrivals import Arrivals
from distkv.data.choose import LATE_MAX, Measurements
from distkv.data.gather import Gather, ShardsGone, decoder
from distkv.data.memory import MemoryBudget
from distkv.data.messages import Found, ShardGiven, ShardWanted
from distkv.data.ports import Addressed, Applied, stream_of
from distkv.data.rows import Piece
from distkv.data.sending import Sender
from distkv.data.shards import ShardKeeper
from distkv.errors import Corrupt, DataLost, DeadlineExceeded, DistKVError, NoQuorum
from distkv.ids import Member, ValueId
from distkv.kernel import Future, Kernel, TimedOut
from distkv.machine.interface import Record

TRIES = 3
"""How often the same record may be found short of shards before the read gives up."""

RETRY_SECONDS = 0.05
AHEAD_SECONDS = 0.5
"""With pieces under way that take longer, nothing is asked for ahead of what is needed next."""
LATE_WAITS = 2
"""So many times the average wait for a piece is too long."""


class Reader:
    """Implements `gather.Fetcher`; all reads of this node and the rebuilding of its shards."""

    def __init__(
        self,
        kernel: Kernel,
        applied: Applied,
        own: Member,
        sender: Sender,
        keeper: ShardKeeper,
        peers: dict[int, int],
        budget: MemoryBudget,
    ) -> None:
        """`peers`: ordinal -> incarnation of those connected, kept up to date by the owner."""
        self.kernel = kernel
        self.own = own.ordinal
        self.reads = Measurements()
        self.hedged = 0
        """Requests that took too long, so that others were asked; since the start."""
        self.fetched_bytes = 0
        """Of pieces of others, since the start."""
        self.on_short: Callable[[ValueId], None] | None = None
        """A read missed the own shard of a value: repair it first."""
        self.on_lost: Callable[[ValueId, int, int], None] | None = None
        """on_lost(value id, shards that exist, k_e): everybody answered, it cannot be rebuilt."""
        self.on_whole: Callable[[ValueId], None] | None = None
        """A value was read whole."""
        self.on_doubt: Callable[[Member, str, str], None] | None = None
        """on_doubt(member, kind of member.suspicions, detail): what no sound peer sends."""
        self._applied = applied
        self._sender = sender
        self._keeper = keeper
        self._peers = peers
        self._budget = budget
        self._request = 0
        self._arrivals = Arrivals()
        self._open: dict[int, tuple[Gather, int]] = {}

    # -- gather.Fetcher

    def connected(self) -> tuple[int, ...]:
        """See gather.Fetcher."""
        return tuple(
            member.ordinal
            for member in self._applied.members
            if member.ordinal != self.own and self._peers.get(member.ordinal) == member.incarnation
        )

    def members(self) -> tuple[int, ...]:
        """See gather.Fetcher."""
        return tuple(member.ordinal for member in self._applied.members)

    def local(self, value_id: ValueId, stripe: int) -> Piece | Found:
        """See gather.Fetcher."""
        found = self._keeper.read(value_id, stripe)
        if isinstance(found, Found) and self.on_short is not None:
            self.on_short(value_id)
        return found

    def ask(self, gather: Gather, ordinal: int, wanted: ShardWanted, size: int) -> float:
        """See gather.Fetcher."""
        self._open[wanted.request] = (gather, ordinal)
        self._arrivals.asked(self.kernel.now, wanted.request, size)
        self._sender.send(Addressed(ordinal, stream_of(wanted.value_id), wanted))
        waits = min(LATE_MAX, LATE_WAITS * self._arrivals.wait())
        return max(self.reads.late_after(ordinal, size), waits)

    def crowded(self) -> bool:
        """See gather.Fetcher."""
        return self._arrivals.wait() > AHEAD_SECONDS

    def new_request(self) -> int:
        """See gather.Fetcher."""
        self._request += 1
        return self._request

    def doubt(self, ordinal: int, given: ShardGiven) -> None:
        """See gather.Fetcher."""
        member = Member(ordinal, self._peers.get(ordinal, 0))
        sound = checksum(given.piece) == given.crc
        kind = "malformed_piece" if sound else "bad_checksum"
        if self.on_doubt is not None:
            self.on_doubt(member, kind, f"stripe {given.stripe} of a value it was asked for")

    def late(self, request: int) -> None:
        """See gather.Fetcher."""
        self.hedged += 1
        self._arrivals.ended(request)

    def forget(self, request: int) -> None:
        """See gather.Fetcher."""
        self._open.pop(request, None)
        self._arrivals.ended(request)

    # -- what arrives

    def on_given(self, sender: Member, given: ShardGiven) -> None:
        """A piece, or word that it is gone."""
        self.fetched_bytes += len(given.piece)
        self._arrivals.arrived(self.kernel.now, len(given.piece))
        found = self._open.get(given.request)
        if found is not None and found[1] == sender.ordinal:
            found[0].on_given(given)

    def peer_down(self, ordinal: int) -> None:
        """Requests to this peer will not be answered."""
        gathers = {id(g): g for g, asked in list(self._open.values()) if asked == ordinal}
        for gather in gathers.values():
            gather.lost(ordinal)

    @property
    def under_way(self) -> int:
        """Bytes that were asked for and have not come."""
        return self._arrivals.under_way

    # -- reads

    async def read(self, record: Record, deadline: float) -> bytes:
        """The whole value; its checksum was right.

        Raises ShardsGone (start again with the record), Corrupt, DeadlineExceeded, and Busy
        when the memory budget has no room for it.
        """
        self._budget.take(record.length)
        download = Stream(self, record, lambda: deadline)
        try:
            parts = []
            while part := await download.take():
                parts.append(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            download.close()
            self._budget.give_back(record.length)

    async def read_current(
        self,
        record: Record,
        refresh: Callable[[], Awaitable[Record | None]],
        deadline: float,
    ) -> tuple[Record | None, bytes]:
        """The value of a key whose record is `record`, or became newer meanwhile.

        `refresh` gives the record as of a new read index. Returns the record that was read,
        (None, b"") if the key is gone, and b"" with a record that is inline. Raises DataLost,
        NoQuorum, Corrupt, DeadlineExceeded, Busy.
        """
        tries = 0
        while True:
            try:
                return record, await self.read(record, deadline)
            except ShardsGone as gone:
                newer = await refresh()
                if newer is None or newer.value_id is None:
                    return newer, b""
                tries = tries + 1 if newer.value_id == record.value_id else 0
                record = newer
                if tries >= TRIES:
                    raise self.lost(gone, record) from gone
                if tries:
                    await self._pause(deadline)

    async def _pause(self, deadline: float) -> None:
        """Let repair or a returning member change something."""
        if self.kernel.now + RETRY_SECONDS >= deadline:
            raise DeadlineExceeded("the shards could not be gathered before the deadline")
        await self.kernel.sleep(RETRY_SECONDS)

    def stream(
        self,
        record: Record,
        patience: float,
        refresh: Callable[[], Awaitable[Record | None]] | None = None,
    ) -> Stream:
        """A Download of the record's value. Each stripe may take `patience` seconds from when it
        is asked for: how long all of them do is up to the network and to who reads. `refresh`
        gives the key's record as of a new read index, so that a lost value is told from one
        that was superseded."""
        return Stream(self, record, lambda: self.kernel.now + patience, refresh)

    def whole(self, record: Record) -> None:
        """Its shards sufficed."""
        if self.on_whole is not None and record.value_id is not None:
            self.on_whole(record.value_id)

    def lost(self, gone: ShardsGone, record: Record) -> DistKVError:
        """What to tell of a record that is current and names a value with too few shards."""
        if gone.silent:
            return NoQuorum(
                f"too few shards answer; members {list(gone.silent)} are cut off and may hold more"
            )
        if self.on_lost is not None:
            self.on_lost(gone.value_id, gone.shards, record.data_shards)
        return DataLost(
            f"every member answered: {gone.shards} shards of this value are left and "
            f"{record.data_shards} are needed; it is listed until it is overwritten or deleted"
        )


class Stream:
    """Implements `operations.Download`: a bounded window of stripes is fetched ahead.

    The checksum of the whole value is verified before its last stripe is handed out, so a
    wrong value is never complete.
    """

    def __init__(
        self,
        reader: Reader,
        record: Record,
        deadline: Callable[[], float],
        refresh: Callable[[], Awaitable[Record | None]] | None = None,
    ) -> None:
        """`deadline`: of the stripe that is asked for now."""
        self.length = record.length
        self._refresh = refresh
        self._reader = reader
        self._record = record
        self._deadline = deadline
        self._gather = Gather(reader, record, decoder(record))
        self._checksum = 0
        self._given = 0
        self._ended = False

    def next(self) -> Future[bytes]:
        """See operations.Download. ShardsGone is a NoQuorum: the value was superseded."""
        return self._reader.kernel.spawn(self.take())

    async def take(self) -> bytes:
        """Like `next`, for coroutines."""
        if self._ended or not self.length:
            return b""
        try:
            part = await self._reader.kernel.within(self._deadline(), self._gather.next())
        except TimedOut:
            self.close()
            raise DeadlineExceeded("the shards did not arrive before the deadline") from None
        except ShardsGone as gone:
            self.close()
            raise await self._judged(gone) from gone
        except CodingError as error:
            raise Corrupt(f"shards of this value do not fit together: {error}") from error
        self._checksum = extend(self._checksum, part)
        self._given += len(part)
        if self._given >= self.length:
            self.close()
            if self._checksum != self._record.checksum:
                raise Corrupt("the value read back fails its checksum")
            self._reader.whole(self._record)
        return part

    async def _judged(self, gone: ShardsGone) -> DistKVError:
        """A value that is still the key's, and of which too little is left, is lost."""
        if self._refresh is None or gone.silent:
            return gone
        newer = await self._refresh()
        if newer is None or newer.value_id != self._record.value_id:
            return gone
        return self._reader.lost(gone, self._record)

    def close(self) -> None:
        """Stop; nothing more is fetched."""
        self._ended = True
        self._gather.close()
