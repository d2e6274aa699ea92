"""One RESP client: bytes to commands to replies, in order, with bounded memory.

The usual command costs no task and no asyncio future: the store's future calls the slot of
the reply, and all replies that are ready in one turn of the loop leave in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from distkv.api.budget import Allowance, no_memory
from distkv.api.large import LargeValue
from distkv.api.metrics import Series, clock
from distkv.api.resp import encode
from distkv.api.resp.coalescing import leading_sets
from distkv.api.resp.encode import OK, RespError, constant
from distkv.api.resp.parser import Argument, Item, Refused, RequestParser, abort_all
from distkv.api.resp.pipeline import Pipeline, Slot, error_reply
from distkv.api.resp.refusals import key_too_large, refuse
from distkv.api.resp.table import Awaited, Command, Encoder, Scope, keys_of
from distkv.api.stream import Stream, close_downloads, held_of
from distkv.kernel import Future
from distkv.operations import Operation, Put, Write

if TYPE_CHECKING:
    from distkv.api.resp.server import RespServer

log = logging.getLogger("distkv.resp")

_NO_KEYS: list[Any] = []
_HELD_MAX = 64 * 1024
"""Bytes of an incomplete command that are kept even when memory is short."""
_UNCHARGED_REPLY = 1024


class RespConnection(asyncio.Protocol):
    """See the module. Handlers use `execute`, `store`, `deadline` and the client's state."""

    def __init__(self, server: RespServer) -> None:
        self.server = server
        self.store = server.store
        self.limits = server.options.limits
        self.budget = server.budget
        self.metrics = server.metrics
        self.identity: int = server.next_identity()
        self.name = b""
        self.library: dict[bytes, bytes] = {}
        self.resp3 = False
        self.authenticated = server.options.password is None
        self.deadline = 0.0
        self.opened = self.moved = server.store.now()
        self.last_command = ""
        self.writing_paused = False
        self._transport: asyncio.Transport | None = None
        self._parser = RequestParser(self.limits, self._open_large)
        self._backlog: deque[Item] = deque()
        self._pipeline = Pipeline()
        self._large: list[LargeValue] = []
        self._out: list[bytes] = []
        self._stream: Stream | None = None
        self._turn_due = False
        self._reading_paused = False
        self._ending = False
        self._allowance = Allowance(self.budget, self._schedule)
        self._charged_held = 0
        self._charged_unsent = 0
        self._last_unsent = 0

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there; turned away if there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.output_bytes_high)
        if not self.server.admit(self):
            limit = self.limits.connections_max
            self._transport.write(
                encode.error(f"ERR max number of clients reached: connections_max ({limit})")
            )
            self._transport.close()
            self._ending = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was begun and not executed is given up."""
        self._transport = None
        self._ending = True
        self.server.forget(self)
        self._parser.abort()
        for item in self._backlog:
            if isinstance(item, list):
                abort_all(item)
        self._backlog.clear()
        self._large.clear()
        self._allowance.close()
        if self._stream is not None:
            self._stream.close()
        for slot in self._pipeline.slots:
            if slot.reply is not None:
                self._discard(slot)
        self.budget.give(self._charged_held + self._charged_unsent)
        self._charged_held = self._charged_unsent = 0

    def data_received(self, data: bytes) -> None:
        """Parse, start what may start, write what is ready."""
        if self._ending:
            return
        self.metrics.bytes_in += len(data)
        now = self.store.now()
        self.moved = now
        self.deadline = now + self.limits.request_seconds
        parser = self._parser
        items = parser.feed(data)
        if items:
            self._backlog.extend(items)
        if parser.broken is not None:
            self._backlog.append(Refused(parser.broken))
            self._ending = True
        if self._charged_held or parser.held:
            self._charge_held()
        self._dispatch()
        self._finish_turn()

    def eof_received(self) -> bool:
        """A half-closed client still gets its answers."""
        self._ending = True
        self._parser.abort()
        self._schedule()
        return True

    def pause_writing(self) -> None:
        """The client reads slower than it asks."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """It caught up."""
        self.writing_paused = False
        self.moved = self.store.now()
        self.budget.give(self._charged_unsent)
        self._charged_unsent = 0
        if self._stream is not None:
            self._stream.pump()
        self._schedule()

    # -- for handlers

    def execute(self, operation: Operation, encoder: Encoder) -> Awaited:
        """Give it to the store; the reply is what `encoder` makes of the result."""
        return Awaited(self.store.execute(operation, self.deadline), encoder)

    def end(self) -> None:
        """Close once every reply up to this command's was sent (QUIT)."""
        self._ending = True
        for item in self._backlog:
            if isinstance(item, list):
                abort_all(item)
        self._backlog.clear()

    @property
    def peer(self) -> str:
        """Address of the client, for CLIENT LIST."""
        return _address(self._transport, "peername")

    @property
    def local(self) -> str:
        """Address it connected to."""
        return _address(self._transport, "sockname")

    # -- large arguments (arguments.Owner)

    def now(self) -> float:
        """Seconds on the store's clock."""
        return self.store.now()

    def argument_changed(self) -> None:
        """An argument was admitted, may go on, or was refused."""
        self._schedule()

    def _open_large(self, arguments: list[Argument], length: int) -> LargeValue:
        large = LargeValue(self, self.store, self.budget, self.limits, length)
        streamed = False
        if arguments and self.authenticated:
            name = arguments[0]
            bound = self.server.find(name)
            uploads = bound[0].uploads if bound is not None else None
            streamed = uploads is not None and uploads(len(arguments))
        large.begin(streamed)
        if not self.authenticated:
            large.abort()
        self._large.append(large)
        return large

    def _charge_held(self) -> None:
        held = self._parser.held
        self.budget.take(held)
        self.budget.give(self._charged_held)
        self._charged_held = held
        if held > _HELD_MAX and self.budget.used > self.budget.limit:
            limit = self.limits.memory_in_flight_max
            self._parser.drop(
                f"BUSY too much memory in flight: limit memory_in_flight_max ({limit} bytes)"
            )

    # -- executing

    def _dispatch(self) -> None:
        backlog = self._backlog
        slots = self._pipeline.slots
        started = clock()
        while backlog:
            if self.writing_paused or len(slots) >= self.limits.pipeline_max:
                break
            item = backlog[0]
            if self.budget.full and not self._may_use_memory(item):
                break
            if len(backlog) > 1 and self.authenticated and self._start_together(started):
                continue
            if isinstance(item, Refused):
                backlog.popleft()
                self._answer(encode.error(item.text))
            elif not self._start(item, started):
                break
        self._allowance.give_back()

    def _may_use_memory(self, item: list[Argument] | Refused) -> bool:
        """Memory is short: go on only with what needs none or gives some back, or in turn."""
        bound = None if isinstance(item, Refused) else self.server.find(item[0])
        if bound is None or bound[0].scope is Scope.NOTHING:
            return True
        charge = self.server.estimate.charge(self.budget.limit)
        if self._allowance.spend(charge):
            return True
        if self._pipeline.slots:
            return False
        if self._large:
            return True
        self._allowance.wait(charge, len(self._backlog), self.store.now())
        return False

    def _start(self, item: list[Argument], started: float) -> bool:
        """Execute the first of the backlog; False: it has to wait."""
        if self._large and not all(
            argument.ready for argument in item if isinstance(argument, LargeValue)
        ):
            return False
        bound = self.server.find(item[0])
        refusal = refuse(bound, item, self.authenticated, self.limits.key_bytes_max)
        if refusal is not None:
            self._backlog.popleft()
            abort_all(item)
            self._answer(refusal)
            return True
        assert bound is not None
        command, series = bound
        keys = keys_of(command, item) if command.keys[0] else _NO_KEYS
        depth = self.server.estimate.depth
        if self._pipeline.slots and not self._pipeline.may_start(command.scope, keys, depth):
            return False
        self._backlog.popleft()
        usual = self.deadline
        large = self._take_large(item) if self._large else 0
        answer = self._call(command, series, item, keys)
        self.deadline = usual
        if isinstance(answer, bytes):
            self.budget.give(large)
            series.observe(clock() - started)
            self._answer(answer)
        else:
            self._await(
                answer, Slot(self, answer.encode, series, started, command.scope, keys), item, large
            )
        return True

    def _start_together(self, started: float) -> bool:
        """Submit a row of plain SETs as one write; False: there is none that may start now."""
        items = leading_sets(self._backlog, self.limits.key_bytes_max)
        count = len(items)
        if count < 2:
            return False
        keys = [item[1] for item in items]
        if self._pipeline.slots and not self._pipeline.may_start(Scope.WRITES, keys):
            return False
        for _ in range(count):
            self._backlog.popleft()
        bound = self.server.find(b"SET")
        assert bound is not None
        self.last_command = "set"
        operation = Write(tuple([Put(item[1], item[2]) for item in items]))
        answer = self.execute(operation, constant(OK * count))
        slot = Slot(self, answer.encode, bound[1], started, Scope.WRITES, keys)
        slot.count = count
        self._await(answer, slot, [part for item in items for part in item], 0)
        return True

    def _call(
        self, command: Command, series: Series, item: list[Any], keys: list[Any]
    ) -> bytes | Awaited:
        limit = self.limits.key_bytes_max
        try:
            for key in keys:
                if len(key) > limit:
                    raise RespError(key_too_large(len(key), limit))
            self.last_command = command.name
            return command.handler(self, item)
        except Exception as failure:
            answer = error_reply(failure, command.name)
        series.errors += 1
        for argument in item:
            if type(argument) is not bytes:
                argument.abort()
        return answer

    def _take_large(self, item: list[Any]) -> int:
        """Replace large arguments by what came of them; returns what they are charged. This
        command may take a while longer for them."""
        charged = length = 0
        for index, argument in enumerate(item):
            if isinstance(argument, LargeValue):
                item[index] = argument.take_sink()
                charged += argument.charged
                argument.charged = 0
                length += argument.written
        if length:
            self.deadline = self.store.now() + self.limits.seconds_to_store(length)
        return charged

    def _await(self, answer: Awaited, slot: Slot, item: list[Any], large: int) -> None:
        small = 0
        for argument in item:
            if type(argument) is bytes:
                small += len(argument)
        if slot.scope is Scope.READS:
            small += self.server.estimate.charge(self.budget.limit)
        self.budget.take(small)
        slot.bytes = small + large
        self._pipeline.add(slot)
        answer.future.add_callback(slot.settle)

    def settled(self, slot: Slot, future: Future[Any]) -> None:
        """The outcome of a command is known (called by its slot)."""
        self._pipeline.settled(slot)
        slot.render(future)
        reply = slot.reply
        if self._transport is None:
            self._discard(slot)
            return
        size = len(reply) if isinstance(reply, bytes) else 0
        if slot.scope is Scope.READS:
            self.server.estimate.seen(held_of(reply) if isinstance(reply, list) else size)
        held = size if size > _UNCHARGED_REPLY else 0
        if held:
            self.budget.take(held)
        charged, slot.bytes = slot.bytes, held
        self.budget.give(charged)
        if self._backlog or (self._pipeline.slots and self._pipeline.slots[0] is slot):
            self._schedule()

    def _discard(self, slot: Slot) -> None:
        charged, slot.bytes = slot.bytes, 0
        self.budget.give(charged)
        if isinstance(slot.reply, list):
            close_downloads(slot.reply)

    # -- replies

    def _answer(self, reply: bytes) -> None:
        """A reply that is ready takes its place after those that are not."""
        if self._pipeline.slots or self._stream is not None:
            self._pipeline.slots.append(Slot.ready(self, reply))
        else:
            self._out.append(reply)

    def _schedule(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.server.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._transport is None:
            return
        self.deadline = self.store.now() + self.limits.request_seconds
        self._drain()
        self._dispatch()
        self._finish_turn()

    def _finish_turn(self) -> None:
        self._drain()
        self._write()
        transport = self._transport
        if transport is None:
            return
        large = self._large
        if large:
            self._large = large = [argument for argument in large if not argument.closed]
        pause = bool(self._backlog) or (bool(large) and any(a.paused for a in large))
        if pause != self._reading_paused and not transport.is_closing():
            self._reading_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()
        if self._ending and not self._backlog and not self._pipeline.slots and self._stream is None:
            transport.close()

    def _drain(self) -> None:
        """Move replies whose turn has come to the output."""
        slots = self._pipeline.slots
        while self._stream is None and slots and slots[0].reply is not None:
            slot = slots.popleft()
            reply = slot.reply
            if isinstance(reply, bytes):
                self._out.append(reply)
            elif reply is not None:
                self._write()
                self._stream = Stream(self, reply, self._streamed)
                self._stream.pump()
            charged, slot.bytes = slot.bytes, 0
            if charged:
                self.budget.give(charged)

    def _streamed(self, failure: BaseException | None) -> None:
        self._stream = None
        if failure is None:
            self._schedule()
            return
        # Half a value was sent: only a broken connection tells the client.
        log.warning("a value could not be sent to its end: %s", failure)
        if self._transport is not None:
            self._transport.abort()

    def _write(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self.write_out(out[0] if len(out) == 1 else b"".join(out))

    def write_out(self, data: bytes) -> None:
        """Hand bytes to the transport; what it keeps beyond its mark is charged."""
        transport = self._transport
        if transport is None:
            return
        self.metrics.bytes_out += len(data)
        transport.write(data)
        if self.writing_paused:
            unsent = transport.get_write_buffer_size()
            charged, self._charged_unsent = self._charged_unsent, unsent
            self.budget.take(unsent)
            self.budget.give(charged)

    # -- housekeeping

    def check(self, now: float) -> None:
        """Every second: cut off a stalled client, give up waits that took too long."""
        transport = self._transport
        if transport is None:
            return
        for argument in list(self._large):
            argument.check(now)
        if self._allowance.gave_up(now, self.limits.request_seconds):
            self._refuse_all(encode.store_error(no_memory(self.budget.limit)))
        if self.writing_paused:
            unsent = transport.get_write_buffer_size()
            if unsent != self._last_unsent:
                self._last_unsent = unsent
                self.moved = now
        elif not self._parser.receiving_large or self._reading_paused:
            return
        if now - self.moved > self.limits.stall_patience(self.budget.full):
            self.metrics.stalled += 1
            log.info("cut off %s: it moved no byte for %.0f s", self.peer, now - self.moved)
            transport.abort()

    def _refuse_all(self, reply: bytes) -> None:
        """Nothing of what waits is executed."""
        for item in self._backlog:
            if isinstance(item, list):
                abort_all(item)
            self._answer(encode.error(item.text) if isinstance(item, Refused) else reply)
        self._backlog.clear()
        self._finish_turn()

    def shut(self) -> None:
        """The process stops: answer what was begun, then close."""
        self._ending = True
        if self._parser.receiving_large:
            self._parser.abort()
        self._schedule()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


def _address(transport: asyncio.Transport | None, which: str) -> str:
    address = transport.get_extra_info(which) if transport is not None else None
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?:0"
