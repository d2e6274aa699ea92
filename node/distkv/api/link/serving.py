"""A node's end of one gateway link."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from distkv.api.link import checks, operations, results
from distkv.api.link.frames import (
    FIRST_FRAME_MAX,
    OVERHEAD,
    PIECE_MAX,
    VERSION,
    FrameParser,
    Kind,
    LinkError,
    pack,
)
from distkv.api.link.outgoing import OutgoingDownload
from distkv.api.metrics import clock
from distkv.errors import BadRequest, Busy, DeadlineExceeded, DistKVError, TooLarge
from distkv.kernel import Future
from distkv.operations import Operation, Upload

if TYPE_CHECKING:
    from distkv.api.link.server import LinkServer

log = logging.getLogger("distkv.link")

REQUESTS_MAX = 8192
STREAMS_MAX = 4096
UNSENT_MAX = 128 * 1024 * 1024
"""Answers a gateway leaves unread before it is cut off."""


class _Incoming:
    """An upload of the gateway; credit goes back as the store takes the pieces."""

    __slots__ = ("ended", "sink", "ungranted")

    def __init__(self, sink: Upload) -> None:
        self.sink = sink
        self.ended = False
        self.ungranted = 0
        """Bytes written while the store asks to pause; -1: it does not."""


class LinkServing(asyncio.Protocol):
    """See `frames` for the conversation."""

    def __init__(self, server: LinkServer) -> None:
        self.server = server
        self.store = server.store
        self.metrics = server.metrics
        self.name = "?"
        self._transport: asyncio.Transport | None = None
        self._parser = FrameParser(FIRST_FRAME_MAX)
        self._greeted = False
        self._hello_timer: asyncio.TimerHandle | None = None
        self._requests: dict[int, bool] = {}
        """Open requests; True: cancelled, its result is not wanted."""
        self._uploads: dict[int, _Incoming] = {}
        self._refused_uploads: dict[int, DistKVError] = {}
        self._taken: list[Upload] = []
        """Uploads that belong to the request being read."""
        self.downloads: dict[int, OutgoingDownload] = {}
        self._next_download = 0
        self._out: list[bytes] = []
        self._flush_due = False
        self.writing_paused = False
        limits = server.options.limits
        self._reader = operations.OperationReader(limits.key_bytes_max, self._take_upload)
        self._handlers: dict[int, Callable[[list[Any]], None]] = {
            Kind.REQUEST: self._on_request,
            Kind.CANCEL: self._on_cancel,
            Kind.UPLOAD: self._on_upload,
            Kind.UPLOAD_PIECE: self._on_upload_piece,
            Kind.UPLOAD_END: self._on_upload_end,
            Kind.UPLOAD_ABORT: self._on_upload_abort,
            Kind.CREDIT: self._on_credit,
            Kind.CLOSE: self._on_close,
            Kind.PING: self._on_ping,
        }

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A gateway (or somebody) is there and must say hello soon."""
        self._transport = cast(asyncio.Transport, transport)
        if not self.server.admit(self):
            self._refuse("busy", "too many links: limit connections_max")
            return
        self._hello_timer = self.server.loop.call_later(
            self.server.hello_seconds, self._refuse, "bad_request", "no hello came"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Uploads and downloads of the gateway end; its writes go on."""
        self._transport = None
        self.server.forget(self)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        for incoming in self._uploads.values():
            incoming.sink.abort()
        self._uploads.clear()
        for download in list(self.downloads.values()):
            download.close()
        for request in self._requests:
            self._requests[request] = True

    def data_received(self, data: bytes) -> None:
        """Messages, in order."""
        self.metrics.bytes_in += len(data)
        try:
            for message in self._parser.feed(data):
                if self._transport is None or self._transport.is_closing():
                    return
                self._on_message(message)
        except LinkError as error:
            log.warning("ended the link of %s: %s", self.name, error)
            self._refuse("bad_request", str(error))

    def pause_writing(self) -> None:
        """The gateway reads slower than it asks: downloads wait."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """It caught up."""
        self.writing_paused = False
        for download in list(self.downloads.values()):
            download.pump()

    # -- messages

    def _on_message(self, message: list[Any]) -> None:
        if not self._greeted:
            self._on_hello(message)
            return
        handler = self._handlers.get(message[0])
        if handler is None:
            raise LinkError(f"unknown kind {message[0]}")
        handler(message)

    def _on_hello(self, message: list[Any]) -> None:
        if message[0] != Kind.HELLO:
            raise LinkError("the first message must be a hello")
        version, token, name = checks.fields(message, 3)
        if checks.number(version) != VERSION:
            self._refuse("bad_request", f"this node speaks version {VERSION} of the link")
            return
        expected = self.server.options.token
        shown = checks.text(token, 1024)
        if expected is not None and not hmac.compare_digest(shown.encode(), expected.encode()):
            self._refuse("unauthorized", "the token of the link is wrong")
            return
        self.name = checks.text(name, 256)
        self._greeted = True
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._parser.frame_max = self.server.options.limits.command_bytes_max + OVERHEAD
        self.send([Kind.WELCOME, VERSION])
        log.info("gateway %s is connected", self.name)

    def _on_request(self, message: list[Any]) -> None:
        request, milliseconds, plain = checks.fields(message, 3)
        checks.number(request)
        limits = self.server.options.limits
        seconds = checks.number(milliseconds, 0, 2**40) / 1000
        if request in self._requests:
            raise LinkError("a request id is used twice")
        self._taken = []
        try:
            operation = self._reader.read(plain)
            if len(self._requests) >= REQUESTS_MAX:
                raise Busy(f"too many requests on one link ({REQUESTS_MAX})")
        except DistKVError as failure:
            for sink in self._taken:
                sink.abort()
            self._fail(request, failure)
            return
        self._requests[request] = False
        deadline = self.store.now() + min(seconds, limits.request_seconds_max)
        future = self.store.execute(operation, deadline)
        future.add_callback(partial(self._settled, request, operation, clock()))

    def _settled(
        self, request: int, operation: Operation, started: float, future: Future[Any]
    ) -> None:
        cancelled = self._requests.pop(request)
        series = self.server.series(operation)
        series.observe(clock() - started)
        if future.error is not None:
            series.errors += 1
            if not isinstance(future.error, DistKVError):
                log.error("%s failed", series.name, exc_info=future.error)
            self._fail(request, future.error)
            return
        opened: list[OutgoingDownload] = []
        plain = results.to_plain(operation, future.result(), partial(self._name_download, opened))
        if cancelled or self._transport is None:
            for download in opened:
                download.close()
            self._fail(request, DeadlineExceeded("the request was cancelled"))
            return
        frame = pack([Kind.RESPONSE, request, plain])
        limit = self.server.options.limits.command_bytes_max + OVERHEAD
        if len(frame) > limit:
            for download in opened:
                download.close()
            self._fail(request, TooLarge(f"the answer is over command_bytes_max ({limit} bytes)"))
            return
        self._push(frame)
        for download in opened:
            download.pump()

    def _fail(self, request: int, failure: BaseException) -> None:
        self.send([Kind.ERROR, request, *results.error_to_plain(failure)])

    def _on_cancel(self, message: list[Any]) -> None:
        (request,) = checks.fields(message, 1)
        if checks.number(request) in self._requests:
            self._requests[request] = True

    # -- uploads

    def _on_upload(self, message: list[Any]) -> None:
        upload, length = checks.fields(message, 2)
        checks.number(upload)
        if upload in self._uploads or upload in self._refused_uploads:
            raise LinkError("an upload id is used twice")
        if length is not None:
            checks.number(length)
        try:
            limit = self.server.options.limits.value_bytes_max
            if length is not None and length > limit:
                raise TooLarge(f"a value of {length} bytes is over value_bytes_max ({limit} bytes)")
            if len(self._uploads) + len(self._refused_uploads) >= STREAMS_MAX:
                raise Busy(f"too many uploads on one link ({STREAMS_MAX})")
            sink = self.store.upload(length)
        except DistKVError as failure:
            if len(self._refused_uploads) >= STREAMS_MAX:
                raise LinkError("too many refused uploads") from failure
            self._refused_uploads[upload] = failure
            self.send([Kind.UPLOAD_ERROR, upload, *results.error_to_plain(failure)])
            return
        incoming = _Incoming(sink)
        sink.on_resume = partial(self._resumed, upload)
        self._uploads[upload] = incoming

    def _on_upload_piece(self, message: list[Any]) -> None:
        upload, piece = checks.fields(message, 2)
        checks.octets(piece, PIECE_MAX)
        incoming = self._uploads.get(checks.number(upload))
        if incoming is None:
            if upload not in self._refused_uploads:
                raise LinkError("a piece of an upload that was never begun")
            return
        if incoming.ended:
            raise LinkError("a piece after the end of an upload")
        incoming.ungranted += len(piece)
        if incoming.sink.write(piece):
            self._resumed(upload)

    def _resumed(self, upload: int) -> None:
        incoming = self._uploads.get(upload)
        if incoming is not None and incoming.ungranted and self._transport is not None:
            self.send([Kind.UPLOAD_CREDIT, upload, incoming.ungranted])
            incoming.ungranted = 0

    def _on_upload_end(self, message: list[Any]) -> None:
        (upload,) = checks.fields(message, 1)
        incoming = self._uploads.get(checks.number(upload))
        if incoming is None:
            if upload not in self._refused_uploads:
                raise LinkError("the end of an upload that was never begun")
            return
        if incoming.ended:
            raise LinkError("an upload ends twice")
        incoming.ended = True
        incoming.sink.finish()

    def _on_upload_abort(self, message: list[Any]) -> None:
        (upload,) = checks.fields(message, 1)
        self._refused_uploads.pop(checks.number(upload), None)
        incoming = self._uploads.pop(upload, None)
        if incoming is not None:
            incoming.sink.abort()

    def _take_upload(self, upload: int) -> Upload:
        failure = self._refused_uploads.pop(upload, None)
        if failure is not None:
            raise failure
        incoming = self._uploads.get(upload)
        if incoming is None or not incoming.ended:
            raise BadRequest("the request names an upload that is not complete")
        del self._uploads[upload]
        self._taken.append(incoming.sink)
        return incoming.sink

    # -- downloads

    def _name_download(self, opened: list[OutgoingDownload], data: Any) -> int:
        self._next_download += 1
        download = OutgoingDownload(self, self._next_download, data, self.server.budget)
        self.downloads[download.identity] = download
        opened.append(download)
        return download.identity

    def _on_credit(self, message: list[Any]) -> None:
        download, amount = checks.fields(message, 2)
        checks.number(amount)
        known = self.downloads.get(checks.number(download))
        if known is not None:
            known.grant(amount)

    def _on_close(self, message: list[Any]) -> None:
        (download,) = checks.fields(message, 1)
        known = self.downloads.get(checks.number(download))
        if known is not None:
            known.close()

    # -- health and output

    def _on_ping(self, message: list[Any]) -> None:
        (count,) = checks.fields(message, 1)
        status = self.store.health()
        keys = status.get("keys")
        self.send(
            [
                Kind.PONG,
                checks.number(count),
                bool(status.get("serving")) and not self.server.closing,
                str(status.get("state", ""))[:256],
                keys if isinstance(keys, int) else None,
            ]
        )

    def send(self, message: list[Any]) -> None:
        """Queue a message; all of a turn leave in one write."""
        self._push(pack(message))

    def _push(self, frame: bytes) -> None:
        if self._transport is None:
            return
        self._out.append(frame)
        if not self._flush_due:
            self._flush_due = True
            self.server.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out, self._out = self._out, []
        transport = self._transport
        if transport is None or not out or transport.is_closing():
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        self.metrics.bytes_out += len(data)
        transport.write(data)
        if self.writing_paused and transport.get_write_buffer_size() > UNSENT_MAX:
            log.warning("cut off gateway %s: it does not read its answers", self.name)
            self.metrics.stalled += 1
            transport.abort()

    def _refuse(self, code: str, message: str) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._flush()
            transport.write(pack([Kind.REFUSED, code, message[:1024]]))
            transport.close()

    def shut(self) -> None:
        """The process stops; the gateway asks other nodes from now on."""
        self._refuse("shutting_down", "this node is stopping")

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
