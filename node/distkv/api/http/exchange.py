"""One request and its response, from the end of its headers to its last byte."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from distkv.api.http import message
from distkv.api.http.message import HttpError, Request
from distkv.api.large import LargeValue
from distkv.api.metrics import Series, clock
from distkv.api.options import Limits
from distkv.errors import DistKVError
from distkv.kernel import Future
from distkv.operations import Download, Upload

if TYPE_CHECKING:
    from distkv.api.http.connection import HttpConnection

log = logging.getLogger("distkv.http")


class Application(Protocol):
    """What a listener serves."""

    def route(self, exchange: Exchange) -> None:
        """Headers are there: choose `exchange.handler` and how the body is taken.

        Raises HttpError or DistKVError to refuse.
        """


class Exchange:
    """Handlers use `request`, `body` and answer with one of the `answer` methods, once."""

    def __init__(self, connection: HttpConnection, request: Request) -> None:
        self.connection = connection
        self.request = request
        self.handler: Any = None
        """Called with the exchange once the body is there."""
        self.series: Series | None = None
        self.reads = False
        """Set by `route`: the answer may hold a value."""
        self.charged = 0
        """What an answer may hold, charged while it is made."""
        self.streamed = False
        """Set by `route`: a body above 64 KiB goes to `store.upload` as it arrives."""
        self.body_max = 0
        """Set by `route`: largest body that is collected, if not `streamed`."""
        self.body_limit = ""
        self.started = clock()
        self.complete = False
        self.running = False
        self.answered = False
        self.failure: BaseException | None = None
        """Refused before its handler could run; answered when its turn comes."""
        self.large: LargeValue | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def patience(self, limits: Limits) -> float:
        """Seconds it may take. Raises BadRequest."""
        text = self.request.header(b"x-distkv-timeout-ms")
        if text is None:
            return limits.seconds_to_store(self.large.written if self.large else 0)
        most = int(limits.request_seconds_max * 1000)
        return message.number(text, "X-DistKV-Timeout-Ms", 1, most) / 1000

    # -- the body

    def receive(self, piece: bytes) -> None:
        """The next bytes of the body."""
        if self.answered or self.failure is not None:
            return
        if self.large is not None:
            self.large.write(piece)
            return
        self._size += len(piece)
        if self._size > self.body_max:
            self._pieces.clear()
            self.failure = self.failure or HttpError(
                413,
                "too_large",
                f"the body is over the limit {self.body_limit} ({self.body_max} bytes)",
            )
            return
        self._pieces.append(piece)

    def finish(self) -> None:
        """The body is complete."""
        self.complete = True
        if self.large is not None:
            self.large.finish()

    @property
    def ready(self) -> bool:
        """Whether the handler may run."""
        return self.complete and (self.large is None or self.large.ready)

    def body(self) -> bytes:
        """What was collected."""
        return b"".join(self._pieces)

    def value(self) -> bytes | Upload:
        """The body as the value of a Put."""
        return self.body() if self.large is None else self.large.take_sink()

    def run(self) -> None:
        """Call the handler."""
        try:
            self.handler(self)
        except Exception as failure:
            self.refuse(failure)

    # -- the response

    def when(self, future: Future[Any], answer: Any) -> None:
        """Call `answer(result)` when the store is done; its errors are answered here."""

        def settled(done: Future[Any]) -> None:
            if done.error is not None:
                self.refuse(done.error)
                return
            try:
                answer(done.result())
            except Exception as failure:
                self.refuse(failure)

        future.add_callback(settled)

    def answer(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = message.JSON,
        extra: bytes = b"",
    ) -> None:
        """A whole response. For HEAD, `body` only gives the length."""
        keep = self.request.keep_alive
        if status in (204, 304):
            self._send([message.bare_head(status, keep, extra)])
            return
        head = message.head(status, content_type, len(body), keep, extra)
        self._send([head if self.request.method == "HEAD" else head + body])

    def answer_value(
        self, status: int, length: int, data: bytes | Download | None, extra: bytes
    ) -> None:
        """A value; None: its headers only."""
        keep = self.request.keep_alive
        head = message.head(status, message.OCTETS, length, keep, extra)
        if data is None:
            self._send([head])
        elif isinstance(data, bytes):
            self.connection.server.estimate.seen(len(data))
            self._send([head + data])
        else:
            self.connection.server.estimate.seen(data.length)
            self._send([head, data])

    def answer_json(self, status: int, value: Any, extra: bytes = b"") -> None:
        """A JSON document."""
        self.answer(status, message.dump(value), message.JSON, extra)

    def refuse(self, failure: BaseException) -> None:
        """An error; if the body is still arriving, the connection ends with this response."""
        if not isinstance(failure, DistKVError | HttpError):
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=failure)
        if self.series is not None:
            self.series.errors += 1
        if not self.complete:
            self.request.keep_alive = False
        status, extra, body = message.refusal(failure)
        self.answer(status, body, message.JSON, extra)

    def _send(self, segments: Sequence[bytes | Download]) -> None:
        if self.answered:
            return
        self.answered = True
        if self.series is not None:
            self.series.observe(clock() - self.started)
        self.connection.respond(self, segments)

    def release(self) -> None:
        """The exchange is over, or the client is gone."""
        self._pieces.clear()
        charged, self.charged = self.charged, 0
        self.connection.server.budget.give(charged)
        large = self.large
        if large is not None:
            large.abort()
            charged, large.charged = large.charged, 0
            self.connection.server.budget.give(charged)
