"""Drives a member: sockets, disk and clock in, its `Output` out. The only place they meet.

One turn: everything that arrived in this wake-up of the loop was handed to the member; it
is asked once what to do; the batch goes to the engine (page cache), messages leave, and if
somebody waits for durability there is one flush: here and now while the disk is quick, else in
a thread while the next turns go on (group commit: a flush covers every batch written before it
began). `flusher` says when.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from distkv.core.messages import Accepted
from distkv.member.member import Member
from distkv.member.output import Outgoing, Output
from distkv.runtime.flusher import Flusher
from distkv.storage.base import Engine, StorageError, StorageFull
from distkv.transport.base import Identity, Lane, Transport
from distkv.transport.options import BEAT_BYTES
from distkv.version import version
from distkv.wire.codec import WireError, decode, encode

log = logging.getLogger("distkv.driver")

FULL_RETRY_SECONDS = 1.0
LOOK_BYTES_MIN = 1024 * 1024
"""Free space is asked for once per so many bytes written, or per eighth of the reserve."""
COMPACT_BYTES_MIN = 256 * 1024
"""Bytes that compaction may copy in one step between turns: a few milliseconds at most."""
TIMER_SECONDS = 0.010
"""Consensus may be called so much too late; nothing there is due sooner."""
AWAKE_SECONDS = 0.001
"""A timer that would fire so soon after a turn is asked whether it still must."""
TURNS_IN_A_ROW = 4
"""Turns that a flush made necessary, before other work of the loop goes first."""
COMPACT_IDLE_SECONDS = 0.5
ROOM_RESERVES = 2
"""Below so many times the reserve the engine is asked to make room."""
PAYLOAD_BYTES = 1024 * 1024
"""Messages of one turn to one peer travel together up to this size."""


def payloads_of(batch: list[object], limit: int) -> list[bytes]:
    """The batch as messages of the transport, each (if it can be cut) of at most `limit` bytes."""
    payload = encode(batch)
    if len(payload) <= limit or len(batch) == 1:
        return [payload]
    middle = len(batch) // 2
    return payloads_of(batch[:middle], limit) + payloads_of(batch[middle:], limit)


class Driver:
    """Implements `transport.base.Handler`; see the module."""

    def __init__(
        self, member: Member, engine: Engine, halt: Callable[[str], None], reserve: int = 0
    ) -> None:
        """`reserve`: free bytes, besides the engine's own reserve, below which the node takes
        no more values of clients. `halt`: told why the node cannot go on."""
        self.member = member
        self.engine = engine
        self._halt = halt
        # Below its own reserve the engine refuses consensus too: no leader, no deletion then.
        self._reserve = reserve + engine.reserve_bytes
        self._look_bytes = max(LOOK_BYTES_MIN, reserve // 8)
        self._unlooked = 0
        self._compacted = False
        """Since the last flush that compaction asked for."""
        self._loop = asyncio.get_running_loop()
        self._flusher = Flusher(engine)
        self._transport: Transport | None = None
        self._turn_due = False
        self._in_turn = False
        self._sent = False
        self._turn_follows = False
        """The transport delivers messages, and calls `on_turn` after the last."""
        self._asked_by_transport = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._unwritten: deque[Output] = deque()
        self._unflushed: deque[tuple[int, list[Outgoing]]] = deque()
        """Numbers, and what waits for the flush: not the rows, which may be shards of a large
        value of which nothing is waited for until the last has come."""
        self._flush_wanted = False
        self._flushing = False
        self.flushes = 0
        self.turns = 0
        self._written = 0
        self._unflushed_bytes = 0
        self._scarce = False
        self._refused = False
        self._retry: asyncio.TimerHandle | None = None
        self.free_bytes = 0
        self.closed = False
        member.on_work = self.wake

    def attach(self, transport: Transport) -> None:
        """Connect the transport; then the first turn runs."""
        self._transport = transport
        self._compact_when_idle()
        self.wake()

    # -- transport.base.Handler

    def on_message(self, peer: Identity, lane: Lane, payload: bytes) -> None:
        """Decode; what does not decode is the peer's fault, is counted and dropped."""
        self._turn_follows = True
        try:
            messages = decode(payload)
        except WireError as error:
            self.member.suspect(f"node {peer.ordinal}", "undecodable_message", str(error))
            return
        try:
            for message in messages:
                self.member.receive(peer, message)
        except Exception as failure:
            self._fail(failure)
        if len(messages) == 1 and type(messages[0]) is Accepted and not self.member.has_work:
            return  # a vote that completes no quorum
        self.wake()

    def on_peer_up(self, peer: Identity) -> None:
        """A connection is there."""
        self.member.peer_up(peer)
        self.wake()

    def on_peer_down(self, peer: Identity, reason: str) -> None:
        """A connection is gone."""
        log.info("peer %d is down: %s", peer.ordinal, reason)
        self.member.peer_down(peer)
        self.wake()

    def on_drained(self, ordinal: int, lane: Lane) -> None:
        """Room again in a queue."""
        self.member.drained(ordinal, lane)
        self.wake()

    def on_suspicion(self, source: str, kind: str, detail: str) -> None:
        """Count it."""
        self.member.suspect(source, kind, detail)

    def on_turn(self) -> None:
        """Run the turn now, so that answers leave with this wake-up's acknowledgements."""
        self._turn_follows = False
        if self._turn_due or self.member.starved:
            self._asked_by_transport = True
            try:
                self._turn()
            finally:
                self._asked_by_transport = False

    # -- the loop

    def wake(self) -> None:
        """Something was handed to the member: run a turn soon, once."""
        if not self._turn_due and not self._in_turn and not self.closed:
            self._turn_due = True
            if not self._turn_follows:
                self._loop.call_soon(self._turn_if_due)

    def _turn_if_due(self) -> None:
        if self._turn_due:
            self._turn()

    def _turn(self) -> None:
        if self._in_turn:
            return
        for _ in range(TURNS_IN_A_ROW):
            if self.closed or not self._one_turn():
                break
        else:
            self.wake()
        if not self._asked_by_transport:
            self._let_go()

    def _one_turn(self) -> bool:
        """True: a flush ended meanwhile, and there is more to do now."""
        self._turn_due = False
        if self._unwritten and not self._write():
            # The state machine's own rows wait for space: until they are written nothing
            # may be read from it, so this node is as good as down.
            self._send(self.member.fail_waiting(self._loop.time()))
            return False
        self._in_turn = True
        self.turns += 1
        try:
            output = self.member.turn(self._loop.time(), int(time.time() * 1000))
        except Exception as failure:
            self._fail(failure)
            return False
        finally:
            self._in_turn = False
        self._unwritten.append(output)
        if not self._write():
            return False
        self._send(output.messages)
        more = self._flush_if_wanted()
        self._arm()
        return more

    def _fail(self, failure: Exception) -> None:
        """A broken invariant, or an entry of a newer version: stop before harm is done."""
        if not self.closed:
            self.closed = True
            log.error("the node halts, going on could be unsafe", exc_info=failure)
            self._halt(f"{type(failure).__name__}: {failure}")

    @property
    def blocked(self) -> bool:
        """A batch could not be written: nothing goes on until there is space."""
        return bool(self._unwritten)

    def _write(self) -> bool:
        """Hand over what the engine takes; False: the disk is full."""
        while self._unwritten:
            output = self._unwritten[0]
            if output.writes:
                try:
                    size = self.engine.write(output.writes)
                    self._unflushed_bytes += size
                    self._unlooked += size
                except StorageFull as full:
                    self._on_full(str(full))
                    return False
            self._unwritten.popleft()
            self._unflushed.append((output.number, output.messages_after_flush))
            self._flush_wanted |= output.must_flush
        if self._refused:
            self._refused = False
            self._judge_space()
        if self._unlooked >= self._look_bytes:
            self.look_at_space()
        return True

    def _on_full(self, reason: str) -> None:
        self.member.write_refused()
        if not self._refused:
            log.error("a batch could not be written: %s", reason)
            self._refused = True
            self.free_bytes = self.engine.usage().free
            self._judge_space()
        if self._retry is None:
            # One only: every message that arrives meanwhile tries again as well.
            self._retry = self._loop.call_later(FULL_RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.wake()

    def look_at_space(self) -> None:
        """Regularly, and as it is written: whether what is free is more than the reserve."""
        self._unlooked = 0
        self.free_bytes = self.engine.usage().free
        self._scarce = self.free_bytes < self._reserve
        if self.free_bytes < ROOM_RESERVES * self._reserve:
            self.engine.make_room()
        self._judge_space()

    def _judge_space(self) -> None:
        full = self._scarce or self._refused
        if full == self.member.disk_full:
            return
        self.member.disk_full = full
        if full:
            log.error(
                "the disk is full (%d bytes are free): this node is read-only until space is back",
                self.free_bytes,
            )
        else:
            log.warning("the disk has space again: this node takes writes")
        self.wake()

    def status(self) -> dict[str, object]:
        """The member's status and what the process knows."""
        usage = self.engine.usage()
        return self.member.status() | {
            "version": version(),
            "bytes_live": usage.live,
            "bytes_on_disk": usage.on_disk,
            "bytes_free": usage.free,
            "turns": self.turns,
            "flushes": self.flushes,
        }

    def _flush_if_wanted(self) -> bool:
        """True: what was written is flushed, and there is more to do."""
        if not self._flush_wanted or self._flushing:
            return False
        self._flush_wanted = False
        covered = len(self._unflushed)
        written, self._unflushed_bytes = self._unflushed_bytes, 0
        self._written += written
        self.flushes += 1
        # Peers work while the disk does. And before the other thread is told: it would want
        # Python's lock in the middle of sending.
        self._let_go()
        if not self._flusher.quick(written):
            self._flushing = True
            self._flusher.flush(lambda error: self._flush_ended(error, covered), written)
            return False
        return self._flushed(self._flusher.flush_now(), covered)

    def _flush_ended(self, error: BaseException | None, covered: int) -> None:
        self._flushing = False
        if self._flushed(error, covered):
            self._turn()
        else:
            self._let_go()

    def _flushed(self, error: BaseException | None, covered: int) -> bool:
        """Let go what waited for it; whether there is more to do."""
        if self.closed:
            return False
        if error is not None:
            log.error("the node halts: what it wrote may not be durable: %s", error)
            self.closed = True
            self._halt(f"flush failed: {error}")
            return False
        number = 0
        released: list[Outgoing] = []
        for _ in range(covered):
            number, waiting = self._unflushed.popleft()
            released += waiting
        if number:
            try:
                self.member.flushed(number)  # which may take the seat, and read all that it needs
            except Exception as failure:
                self._fail(failure)
                return False
        self._send(released)
        if self._written >= COMPACT_BYTES_MIN:
            self._compact(self._written)
            self._written = 0
        return self._turn_due or self._flush_wanted or self.member.has_work

    def _compact(self, written: int) -> bool:
        """Let the engine clean up about as much as was written, so that neither falls behind."""
        try:
            more = self.engine.compact_step(max(COMPACT_BYTES_MIN, written))
        except StorageFull as full:
            log.warning("compaction waits for space: %s", full)
            return False
        self._compacted |= more
        return more

    def _compact_when_idle(self) -> None:
        if self.closed:
            return
        more = not self._flushing and self._compact(0)
        if self._compacted and not more and not self._flushing:
            # Space is given back once the copies are durable, and on a full disk, or a quiet
            # day, nobody else flushes.
            self._compacted = False
            self._flush_wanted = True
            if self._flush_if_wanted():
                self.wake()
        self._loop.call_later(0.02 if more else COMPACT_IDLE_SECONDS, self._compact_when_idle)

    def _send(self, messages: list[Outgoing]) -> None:
        transport = self._transport
        if not messages or transport is None:
            return
        transport.hold()
        self._sent = True
        groups: dict[tuple[int, Lane, int], list[object]] = {}
        for ordinal, lane, stream, message in messages:
            groups.setdefault((ordinal, lane, stream), []).append(message)
        # The leader sends the same objects to every peer: encode them once.
        encoded: dict[tuple[int, ...], list[bytes]] = {}
        for (ordinal, lane, stream), batch in groups.items():
            identities = tuple(map(id, batch))
            payloads = encoded.get(identities)
            if payloads is None:
                limit = BEAT_BYTES if lane is Lane.BEAT else PAYLOAD_BYTES
                payloads = encoded[identities] = payloads_of(batch, limit)
            for payload in payloads:
                transport.send(ordinal, lane, payload, stream)

    def _let_go(self) -> None:
        """Whatever was sent leaves now."""
        if self._sent and self._transport is not None:
            self._sent = False
            self._transport.flush()

    def _arm(self) -> None:
        """One timer; one that fires too early is cheaper than cancelling it at every turn,
        and one that fires soon cheaper than asking when it should. But one that is about to
        fire is moved: who is awake does it for less than being woken."""
        ahead = self._timer_at - self._loop.time() if self._timer is not None else 0.0
        if AWAKE_SECONDS < ahead <= TIMER_SECONDS:
            flow = self.member.kernel.next_timer()
            if flow is None or flow >= self._timer_at:
                return
        when = self.member.next_timer()
        if self._timer is not None:
            near = ahead <= AWAKE_SECONDS and when > self._timer_at + AWAKE_SECONDS
            if self._timer_at <= when and not near:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self.member.next_timer() <= self._loop.time():
            self.wake()
        else:
            self._arm()

    async def close(self) -> None:
        """Stop turning, make everything written durable, close the engine."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._flusher.close()
        try:
            self.engine.flush()
        except StorageError as error:
            log.error("the last flush failed: %s", error)
        self.engine.close()
