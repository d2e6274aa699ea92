"""Enough pieces of each stripe of a stored value, from the quickest members that have them.

Own pieces come first, then data pieces before parity (k data pieces join without decoding),
then whoever is quickest. A source that is silent for longer than it usually takes is not
given up, but another one is asked as well (hedging; Dean and Barroso 2013, "The Tail at
Scale"), unless it only stands behind all that others were asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from distkv.coding.checksum import checksum
from distkv.coding.codec import CodingError, codec
from distkv.coding.layout import ordinal_of, piece_length, shard_of, stripe_count, stripe_length
from distkv.data.choose import Measurements
from distkv.data.messages import Found, ShardGiven, ShardWanted
from distkv.data.rows import Piece
from distkv.errors import NoQuorum
from distkv.ids import ValueId
from distkv.kernel import Future, Kernel, Timer
from distkv.machine.interface import Record

WINDOW_STRIPES = 8
"""Stripes asked for ahead of the one the reader takes next."""


class ShardsGone(NoQuorum):
    """Members lack pieces: the record may be superseded, so start again with the record.

    `silent`: members that were not asked because they are not connected; they might hold some.
    `shards`: those known to exist of the stripe that has the fewest.
    """

    def __init__(self, value_id: ValueId, silent: tuple[int, ...], shards: int = 0) -> None:
        super().__init__("too few shards answer, the value may be superseded; read it again")
        self.value_id = value_id
        self.silent = silent
        self.shards = shards


class Fetcher(Protocol):
    """What a gather needs of the node; `reader.Reader`."""

    kernel: Kernel
    own: int
    reads: Measurements

    def connected(self) -> tuple[int, ...]:
        """Ordinals of connected members, own excluded."""

    def members(self) -> tuple[int, ...]:
        """Ordinals of all members, own included."""

    def local(self, value_id: ValueId, stripe: int) -> Piece | Found:
        """Own piece."""

    def ask(self, gather: Gather, ordinal: int, wanted: ShardWanted, size: int) -> float:
        """Send a request for `size` bytes; the answers come to `gather.on_given`. Seconds after
        which the member is silent for too long."""

    def crowded(self) -> bool:
        """Enough is under way to keep the link busy for a while."""

    def new_request(self) -> int:
        """A number for a request, not used before."""

    def doubt(self, ordinal: int, given: ShardGiven) -> None:
        """A member gave a piece that its own checksum, or its shape, proves wrong."""

    def late(self, request: int) -> None:
        """Nothing of this request is counted upon any more, though it may be answered."""

    def forget(self, request: int) -> None:
        """No more answers to this request are of interest."""


@dataclass(slots=True)
class _Stripe:
    length: int
    pieces: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Request:
    ordinal: int
    first: int
    open: set[int]
    """Stripes not yet answered; only membership is asked of it."""
    started: float
    late_at: float
    late: bool = False
    size: int = 0


class Gather:
    """Collects pieces for `combine(stripe, pieces, length)`, stripe after stripe in order.

    `avoid`: the shard number that is of no use (it is the one to be rebuilt).
    """

    def __init__(
        self,
        fetcher: Fetcher,
        record: Record,
        combine: Callable[[int, dict[int, bytes], int], bytes],
        stripes: list[int] | None = None,
        window: int = WINDOW_STRIPES,
        use_own: bool = True,
        patience: float = 1.0,
    ) -> None:
        """`patience`: so many times the usual wait before another member is asked as well."""
        assert record.value_id is not None, "only coded records are gathered"
        self._fetcher = fetcher
        self._value_id = record.value_id
        self._record = record
        self._combine = combine
        self._window = window
        self._use_own = use_own
        self._patience = patience
        count = stripe_count(record.length, record.stripe_bytes)
        self._order = list(range(count)) if stripes is None else stripes
        self._taken = 0
        self._asked = 0
        self._stripes: dict[int, _Stripe] = {}
        self._requests: dict[int, _Request] = {}
        self._useless: dict[tuple[int, int], None] = {}
        """(member, stripe) that is gone or wrong there."""
        self._failure: ShardsGone | None = None
        self._waiter: Future[bytes] | None = None
        self._timer: Timer | None = None
        self.closed = False
        self.received_bytes = 0
        self.corrupt = 0
        """Pieces that arrived, or rest at a member, with a wrong checksum."""

    # -- the reader

    def next(self) -> Future[bytes]:
        """The next combined stripe, b"" after the last. Fails with ShardsGone, CodingError."""
        assert self._waiter is None or self._waiter.done, "one at a time"
        waiter = self._waiter = Future()
        if self._failure is not None:
            waiter.set_exception(self._failure)
        elif not self.closed:
            self._fill()
            self._deliver()
        return waiter

    def close(self) -> None:
        """No more answers are wanted."""
        self.closed = True
        for request in self._requests:
            self._fetcher.forget(request)
        self._requests.clear()
        self._stripes.clear()
        if self._timer is not None:
            self._timer.cancel()

    # -- asking

    def _fill(self) -> None:
        """Open stripes up to the window, and ask for their pieces together.

        In halves of the window, so that a request is worth its message. Nothing ahead while
        what all reads asked for takes long to arrive: it would only wait here instead of there.
        """
        window = 1 if self._fetcher.crowded() else self._window
        end = min(len(self._order), self._taken + window)
        if self._asked >= end or (
            self._asked > self._taken and end - self._asked < window // 2 and end < len(self._order)
        ):
            return
        fresh = self._order[self._asked : end]
        self._asked = end
        for number in fresh:
            length = stripe_length(self._record.length, self._record.stripe_bytes, number)
            stripe = self._stripes[number] = _Stripe(length)
            if self._use_own:
                own = self._fetcher.local(self._value_id, number)
                if isinstance(own, Piece):
                    self._accept(stripe, own)
        self._ask()

    def _accept(self, stripe: _Stripe, piece: Piece) -> bool:
        """Take a piece whose checksum is right, if it is one of this stripe at all."""
        record = self._record
        if piece.length != stripe.length or not 0 <= piece.shard < record.size:
            return False
        if len(piece.piece) != piece_length(stripe.length, record.data_shards, piece.shard):
            return False
        stripe.pieces.setdefault(piece.shard, piece.piece)
        return True

    def _missing(self, number: int) -> int:
        return self._record.data_shards - len(self._stripes[number].pieces)

    def _ask(self) -> None:
        """Have as many prompt requests under way for each stripe as it lacks pieces."""
        want: dict[int, list[int]] = {}
        hopeless, fewest = False, self._record.size
        for number in self._order[self._taken : self._asked]:
            if number not in self._stripes:
                continue
            lacking = self._missing(number)
            asked = [r.ordinal for r in self._requests.values() if number in r.open]
            prompt = sum(not r.late for r in self._requests.values() if number in r.open)
            for ordinal in self._candidates(number) if lacking > prompt else ():
                if lacking <= prompt:
                    break
                if ordinal not in asked:
                    want.setdefault(ordinal, []).append(number)
                    prompt += 1
            new = sum(number in numbers for numbers in want.values())
            # Only when everybody has answered: what is left must be counted right.
            if lacking > 0 and not asked and not new:
                hopeless = True
                fewest = min(fewest, self._record.data_shards - lacking)
        for ordinal, numbers in want.items():
            self._request(ordinal, numbers)
        if hopeless:
            self._give_up(fewest)
        self._arm()

    def _candidates(self, number: int) -> list[int]:
        """Members that may help with a stripe, best first."""
        record, fetcher = self._record, self._fetcher
        have = self._stripes[number].pieces
        listed = {member.ordinal for member in record.holders}
        size = piece_length(record.stripe_bytes, record.data_shards, 0)

        def rank(ordinal: int) -> tuple[bool, bool, float, int]:
            shard = shard_of(ordinal, self._value_id, record.size)
            parity = shard >= record.data_shards
            slow = fetcher.reads.expected(ordinal, size)
            return ordinal not in listed, parity, slow, ordinal

        usable = [
            ordinal
            for ordinal in fetcher.connected()
            if ordinal < record.size
            and (ordinal, number) not in self._useless
            and shard_of(ordinal, self._value_id, record.size) not in have
        ]
        usable.sort(key=rank)
        return usable

    def _request(self, ordinal: int, numbers: list[int]) -> None:
        """One message for each run of consecutive stripes."""
        start = 0
        for i in range(1, len(numbers) + 1):
            if i < len(numbers) and numbers[i] == numbers[i - 1] + 1:
                continue
            run = numbers[start:i]
            start = i
            request = self._fetcher.new_request()
            size = len(run) * piece_length(self._record.stripe_bytes, self._record.data_shards, 0)
            now = self._fetcher.kernel.now
            wanted = ShardWanted(request, self._value_id, run[0], len(run))
            usual = self._fetcher.ask(self, ordinal, wanted, size)
            late_at = now + self._patience * usual
            self._requests[request] = _Request(ordinal, run[0], set(run), now, late_at, size=size)

    def _arm(self) -> None:
        """Wake when the next source is late."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [r.late_at for r in self._requests.values() if not r.late]
        if times and not self.closed:
            self._timer = self._fetcher.kernel.call_at(min(times), self._on_late)

    def _on_late(self) -> None:
        now = self._fetcher.kernel.now
        for number, request in self._requests.items():
            if not request.late and request.late_at <= now:
                request.late = True
                self._fetcher.late(number)
                self._fetcher.reads.add(request.ordinal, request.size, now - request.started)
        self._ask()

    def _give_up(self, shards: int) -> None:
        known = (*self._fetcher.connected(), self._fetcher.own)
        members = [o for o in self._fetcher.members() if o < self._record.size]
        silent = tuple(o for o in members if o not in known)
        self._failure = ShardsGone(self._value_id, silent, shards)
        if self._waiter is not None:
            self._waiter.set_exception(self._failure)
        self.close()

    # -- answers

    def on_given(self, given: ShardGiven) -> None:
        """One piece, or word that it is gone."""
        request = self._requests.get(given.request)
        if request is None or given.stripe not in request.open or self.closed:
            return
        request.open.discard(given.stripe)
        if not request.open:
            self._finish_request(given.request, request)
        stripe = self._stripes.get(given.stripe)
        if given.found is Found.HERE and checksum(given.piece) == given.crc:
            self.received_bytes += len(given.piece)
            piece = Piece(given.shard, given.length, given.crc, given.piece)
            if stripe is None or self._accept(stripe, piece):
                self._deliver()
                if stripe is not None and len(stripe.pieces) < self._record.data_shards:
                    self._ask_if_short(given.stripe)
                return
        self.corrupt += given.found is not Found.GONE
        if given.found is Found.HERE:
            self._fetcher.doubt(request.ordinal, given)
        self._useless[request.ordinal, given.stripe] = None
        self._ask()

    def _ask_if_short(self, number: int) -> None:
        """A piece we had already (two members with the same shard) leaves the stripe short."""
        if number not in self._stripes:
            return
        open_ = sum(number in r.open for r in self._requests.values())
        if open_ < self._missing(number):
            self._ask()

    def _finish_request(self, number: int, request: _Request) -> None:
        del self._requests[number]
        self._fetcher.forget(number)
        now = self._fetcher.kernel.now
        self._fetcher.reads.add(request.ordinal, request.size, now - request.started)

    def lost(self, ordinal: int) -> None:
        """The connection to a member is gone: its requests will not be answered."""
        for number in [n for n, r in self._requests.items() if r.ordinal == ordinal]:
            del self._requests[number]
            self._fetcher.forget(number)
        if not self.closed:
            self._ask()

    def _deliver(self) -> None:
        """Hand the next stripe to the waiter, if it is whole."""
        waiter = self._waiter
        if waiter is None or waiter.done:
            return
        if self._taken == len(self._order):
            waiter.set_result(b"")
            return
        number = self._order[self._taken]
        stripe = self._stripes.get(number)
        if stripe is None or len(stripe.pieces) < self._record.data_shards:
            return
        self._taken += 1
        del self._stripes[number]
        try:
            combined = self._combine(number, stripe.pieces, stripe.length)
        except CodingError as error:
            waiter.set_exception(error)
            self.close()
            return
        waiter.set_result(combined)


def decoder(record: Record) -> Callable[[int, dict[int, bytes], int], bytes]:
    """Combine pieces to the value's stripe."""
    code = codec(record.data_shards, record.size)
    return lambda _, pieces, length: code.decode(pieces, length)


def rebuilder(record: Record, shard: int) -> Callable[[int, dict[int, bytes], int], bytes]:
    """Combine pieces to the one of `shard`."""
    code = codec(record.data_shards, record.size)
    return lambda _, pieces, length: code.rebuild(pieces, shard, length)


def seat_of(record: Record, shard: int) -> int:
    """Seat that a shard of a record belongs to."""
    assert record.value_id is not None
    return ordinal_of(shard, record.value_id, record.size)
