"""One HTTP/1.1 client on httptools (llhttp): keep-alive, pipelines in order, streams both ways.

Requests of one connection are executed one at a time. What a client sends ahead of its turn
waits in its exchange, at most one read of the socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import httptools

from distkv.api.budget import Waiting, no_memory
from distkv.api.http import message
from distkv.api.http.exchange import Exchange
from distkv.api.http.message import HttpError, Request
from distkv.api.large import LargeValue
from distkv.api.options import STREAMED_FROM
from distkv.api.stream import Stream, close_downloads
from distkv.errors import BadRequest
from distkv.operations import Download

if TYPE_CHECKING:
    from distkv.api.http.server import HttpServer

log = logging.getLogger("distkv.http")

_HEADERS_MAX = 128
LINGER_SECONDS = 2.0
"""After an early refusal: time for the client to read it before the connection is cut."""


class HttpConnection(asyncio.Protocol):
    """See the module."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.store = server.store
        self.limits = server.limits
        self.writing_paused = False
        self.moved = server.store.now()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._arriving: Exchange | None = None
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._in_head = True
        self._broken: HttpError | None = None
        self._stream: Stream | None = None
        self._turn_due = False
        self._reading_paused = False
        self._ending = False
        self._lingering = False
        self._charged_unsent = 0
        self._last_unsent = 0
        self._waiting: Waiting | None = None
        self._wait_until = 0.0

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there; turned away if there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.output_bytes_high)
        if not self.server.admit(self):
            limit = self.limits.connections_max
            body = message.error_body(
                "busy", f"too many connections: limit connections_max ({limit})", "no", True
            )
            self._transport.write(message.head(503, message.JSON, len(body), False) + body)
            self._transport.close()
            self._ending = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what was begun and not executed."""
        self._transport = None
        self._ending = True
        self.server.forget(self)
        if self._stream is not None:
            self._stream.close()
        if self._waiting is not None:
            self._waiting.cancel()
        for exchange in self._exchanges:
            exchange.release()
        self._exchanges.clear()
        self.server.budget.give(self._charged_unsent)
        self._charged_unsent = 0

    def data_received(self, data: bytes) -> None:
        """Parse; requests begin in the callbacks below."""
        if self._ending or self._lingering:
            return
        self.server.metrics.bytes_in += len(data)
        self.moved = self.store.now()
        if self._in_head:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(HttpError(400, "bad_request", "this server speaks HTTP/1.1 only"))
        except httptools.HttpParserError as error:
            self._break(HttpError(400, "bad_request", f"not an HTTP/1.1 request: {error}"))
        if self._in_head and self._header_bytes > self.limits.header_bytes_max + len(data):
            self._break(self._headers_too_large())
        self._advance()

    def eof_received(self) -> bool:
        """A half-closed client still gets its answers."""
        if self._arriving is not None:
            return False
        self._ending = True
        self._schedule()
        return True

    def pause_writing(self) -> None:
        """The client reads slower than it asks."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """It caught up."""
        self.writing_paused = False
        self.moved = self.store.now()
        self.server.budget.give(self._charged_unsent)
        self._charged_unsent = 0
        if self._stream is not None:
            self._stream.pump()
        self._schedule()

    # -- httptools callbacks

    def on_message_begin(self) -> None:
        """A request starts."""
        self._target = b""
        self._headers = {}
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Its target, maybe in parts."""
        self._target += url
        self._check_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        lower = name.lower()
        known = self._headers.get(lower)
        self._headers[lower] = value if known is None else known + b", " + value
        self._check_head()

    def on_headers_complete(self) -> None:
        """Decide what the request is, before its body."""
        self._in_head = False
        self._header_bytes = 0
        if self._broken is not None:
            return
        size = len(self._target) + sum(len(n) + len(v) + 4 for n, v in self._headers.items())
        parser = self._parser
        keep = parser.should_keep_alive() and not self.server.closing
        method = parser.get_method().decode("latin-1")
        try:
            request = Request(method, self._target, self._headers, keep)
            if size > self.limits.header_bytes_max:
                raise self._headers_too_large()
        except HttpError as failure:
            self._break(failure)
            return
        exchange = Exchange(self, request)
        self._exchanges.append(exchange)
        self._arriving = exchange
        try:
            self.server.application.route(exchange)
            self._take_body(exchange)
        except Exception as failure:
            exchange.failure = failure

    def on_body(self, piece: bytes) -> None:
        """Part of a body."""
        if self._arriving is not None and self._broken is None:
            self._arriving.receive(piece)

    def on_message_complete(self) -> None:
        """The request is whole."""
        exchange, self._arriving = self._arriving, None
        self._in_head = True
        if exchange is not None and self._broken is None:
            exchange.finish()

    # -- requests

    def _check_head(self) -> None:
        if len(self._headers) > _HEADERS_MAX or len(self._target) > self.limits.header_bytes_max:
            self._break(self._headers_too_large())

    def _headers_too_large(self) -> HttpError:
        limit = self.limits.header_bytes_max
        return HttpError(
            431,
            "too_large",
            f"start line and headers have more than {limit} bytes",
        )

    def _break(self, failure: HttpError) -> None:
        """Nothing after this can be understood: answer what came before, then this, then close."""
        if self._broken is not None:
            return
        self._broken = failure
        if self._arriving is not None:
            exchange, self._arriving = self._arriving, None
            exchange.failure = failure
        else:
            exchange = Exchange(self, Request("GET", b"/", {}, False))
            exchange.failure = failure
            self._exchanges.append(exchange)

    def _take_body(self, exchange: Exchange) -> None:
        request = exchange.request
        length = request.length
        if length == 0:
            return
        if exchange.streamed and (length is None or length > STREAMED_FROM):
            exchange.large = LargeValue(self, self.store, self.server.budget, self.limits, length)
            exchange.large.begin(streamed=True)
            if exchange.large.refusal is not None:
                raise exchange.large.refusal
        elif exchange.streamed:
            exchange.body_max = STREAMED_FROM
        elif length is not None and length > exchange.body_max:
            raise HttpError(
                413,
                "too_large",
                f"a body of {length} bytes is over the limit {exchange.body_limit} "
                f"({exchange.body_max} bytes)",
            )
        if (request.header(b"expect") or "").lower() == "100-continue" and len(
            self._exchanges
        ) == 1:
            self.write_out(b"HTTP/1.1 100 Continue\r\n\r\n")

    def argument_changed(self) -> None:
        """See large.Owner."""
        self._schedule()

    def now(self) -> float:
        """See large.Owner."""
        return self.store.now()

    def _schedule(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.server.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._transport is not None:
            self._advance()

    def _advance(self) -> None:
        """Start the first request if it is whole and nothing is being answered."""
        while self._exchanges and not self.writing_paused and self._stream is None:
            exchange = self._exchanges[0]
            if exchange.answered or exchange.running:
                break
            large = exchange.large
            if exchange.failure is not None:
                exchange.running = True
                exchange.refuse(exchange.failure)
            elif large is not None and large.refusal is not None:
                exchange.running = True
                exchange.refuse(large.refusal)
            elif exchange.ready:
                if exchange.reads and not exchange.charged and not self._may_read(exchange):
                    break
                exchange.running = True
                exchange.run()
            else:
                break
        self._update_reading()

    def _may_read(self, exchange: Exchange) -> bool:
        """Charge what the answer will probably hold, now or when it is this client's turn."""
        budget = self.server.budget
        amount = self.server.estimate.charge(budget.limit)
        if not budget.full:
            budget.take(amount)
            exchange.charged = amount
            return True

        def granted() -> None:
            self._waiting = None
            exchange.charged = amount
            self._schedule()

        if self._waiting is None:
            try:
                self._wait_until = self.store.now() + exchange.patience(self.limits)
            except BadRequest as refusal:
                exchange.failure = refusal
                self._schedule()
                return False
            self._waiting = budget.wait(amount, granted)
        return False

    def respond(self, exchange: Exchange, segments: Sequence[bytes | Download]) -> None:
        """Send the response of the first exchange, then go on to the next."""
        if self._transport is None:
            close_downloads(segments)
            exchange.release()
            return
        assert self._exchanges[0] is exchange, "responses leave in order of the requests"
        if len(segments) == 1 and isinstance(segments[0], bytes):
            self.write_out(segments[0])
            self._end_exchange()
            return
        self._stream = Stream(self, segments, self._streamed)
        self._stream.pump()

    def _streamed(self, failure: BaseException | None) -> None:
        self._stream = None
        if failure is not None:
            # Half a value was sent: only a broken connection tells the client.
            log.warning("a value could not be sent to its end: %s", failure)
            if self._transport is not None:
                self._transport.abort()
            return
        self._end_exchange()

    def _end_exchange(self) -> None:
        exchange = self._exchanges.popleft()
        exchange.release()
        if not exchange.request.keep_alive:
            self._finish(early=not exchange.complete)
        elif self._exchanges or self._ending:
            self._schedule()
        else:
            self._update_reading()

    def _finish(self, early: bool) -> None:
        """Close; after an early refusal let the client read it first."""
        transport = self._transport
        if transport is None or self._lingering:
            return
        for exchange in self._exchanges:
            exchange.release()
        self._exchanges.clear()
        if not early:
            transport.close()
            return
        self._lingering = True
        if self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self.server.loop.call_later(LINGER_SECONDS, self.abort)

    def _update_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._lingering:
            return
        first = self._exchanges[0] if self._exchanges else None
        pause = len(self._exchanges) > 1 or (
            first is not None
            and (first.complete or (first.large is not None and first.large.paused))
        )
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()
        if self._ending and first is None and self._stream is None:
            transport.close()

    def write_out(self, data: bytes) -> None:
        """Hand bytes to the transport; what it keeps beyond its mark is charged."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.server.metrics.bytes_out += len(data)
        transport.write(data)
        if self.writing_paused:
            unsent = transport.get_write_buffer_size()
            charged, self._charged_unsent = self._charged_unsent, unsent
            self.server.budget.take(unsent)
            self.server.budget.give(charged)

    # -- housekeeping

    def check(self, now: float) -> None:
        """Every second: cut off a stalled client, give up waits that took too long."""
        transport = self._transport
        if transport is None:
            return
        first = self._exchanges[0] if self._exchanges else None
        if first is not None and self._waiting is not None and now >= self._wait_until:
            self._waiting.cancel()
            self._waiting = None
            first.failure = no_memory(self.server.budget.limit)
            self._schedule()
        for exchange in self._exchanges:
            large = exchange.large
            if large is not None and large.paused:
                large.check(now)
                return
        if self.writing_paused:
            unsent = transport.get_write_buffer_size()
            if unsent != self._last_unsent:
                self._last_unsent = unsent
                self.moved = now
        elif (first is None or first.complete) and not self._header_bytes:
            return
        if now - self.moved > self.limits.stall_patience(self.server.budget.full):
            self.server.metrics.stalled += 1
            transport.abort()

    def shut(self) -> None:
        """The process stops: answer what was begun, then close."""
        self._ending = True
        if self._exchanges and not self._exchanges[0].complete:
            self.abort()
        else:
            self._schedule()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
