"""One connection to a node, while it lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from distkv.api.link import checks, results
from distkv.api.link.frames import VERSION, FrameParser, Kind, LinkError, pack
from distkv.api.link.incoming import IncomingDownload
from distkv.api.link.lost import LinkLost
from distkv.kernel import Future
from distkv.operations import Download, Operation, Upload

if TYPE_CHECKING:
    from distkv.api.link.client import LinkClient
    from distkv.api.link.outbound import RemoteUpload

log = logging.getLogger("distkv.gateway")

DEAD_PINGS = 4
DEAD_SECONDS_MIN = 2.0


class Call(NamedTuple):
    """A request under way."""

    future: Future[object]
    operation: Operation


class LinkCalling(asyncio.Protocol):
    """See `frames` for the conversation. `lost` is resolved when the connection ends."""

    def __init__(self, client: LinkClient, lost: asyncio.Future[None]) -> None:
        self.client = client
        self.loop = client.loop
        self.welcomed = False
        self.calls: dict[int, Call] = {}
        self.uploads: dict[int, RemoteUpload] = {}
        self.downloads: dict[int, IncomingDownload] = {}
        self.writing_paused = False
        self._lost = lost
        self._reason = "the node closed the connection"
        self._transport: asyncio.Transport | None = None
        self._parser = FrameParser(client.options.frame_max)
        self._reader = results.ResultReader(self._open_download)
        self._id = 0
        self._out: list[bytes] = []
        self._flush_due = False
        self._pinged_at = 0.0
        self._heard_at = self.loop.time()
        self._ping_timer: asyncio.TimerHandle | None = None
        self._handlers: dict[int, Callable[[list[Any]], None]] = {
            Kind.WELCOME: self._on_welcome,
            Kind.RESPONSE: self._on_response,
            Kind.ERROR: self._on_error,
            Kind.UPLOAD_CREDIT: self._on_upload_credit,
            Kind.UPLOAD_ERROR: self._on_upload_error,
            Kind.PIECE: self._on_piece,
            Kind.PIECE_ERROR: self._on_piece_error,
            Kind.PONG: self._on_pong,
            Kind.REFUSED: self._on_refused,
        }

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)
        options = self.client.options
        self.send([Kind.HELLO, VERSION, options.token, options.name])
        self._ping()

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything under way fails; who may ask again does so elsewhere."""
        self._transport = None
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        if not self._lost.done():
            self._lost.set_result(None)
        reason = self._reason if exc is None else f"{self._reason}: {exc}"
        self.client.went(reason)
        failure = LinkLost(f"lost node {self.client.address}: {reason}", sent=True)
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.future.set_exception(failure)
        for upload in list(self.uploads.values()):
            upload.fail(failure)
        for download in list(self.downloads.values()):
            download.fail(failure)

    def data_received(self, data: bytes) -> None:
        """Messages, in order."""
        self._heard_at = self.loop.time()
        try:
            for message in self._parser.feed(data):
                handler = self._handlers.get(message[0])
                if handler is None:
                    raise LinkError(f"unknown kind {message[0]}")
                if not self.welcomed and message[0] not in (Kind.WELCOME, Kind.REFUSED):
                    raise LinkError("the first answer must be a welcome")
                handler(message)
        except LinkError as error:
            log.warning("ended the link to node %s: %s", self.client.address, error)
            self.drop(str(error))

    def pause_writing(self) -> None:
        """The node reads slower than the gateway sends: uploads wait."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """It caught up."""
        self.writing_paused = False
        for upload in list(self.uploads.values()):
            upload.grant(0)

    # -- output

    def next_id(self) -> int:
        """Number of a request or upload."""
        self._id += 1
        return self._id

    def name_upload(self, upload: Upload) -> int:
        """The number under which the node knows an upload."""
        identity: int = upload.identity  # type: ignore[attr-defined]
        assert identity in self.uploads, "the upload was made for another connection"
        del self.uploads[identity]
        return identity

    def send(self, message: list[Any]) -> None:
        """Queue a message; all of a turn leave in one write."""
        self._out.append(pack(message))
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def drop(self, reason: str) -> None:
        """End the connection."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def cancel(self, future: Future[object]) -> None:
        """Tell the node that nobody waits."""
        for request, call in self.calls.items():
            if call.future is future:
                self.send([Kind.CANCEL, request])
                return

    # -- health

    def _ping(self) -> None:
        now = self.loop.time()
        probe = self.client.options.probe
        if now - self._heard_at > max(DEAD_PINGS * probe, DEAD_SECONDS_MIN):
            self.drop("it does not answer pings")
            return
        if self.welcomed and not self._pinged_at:
            self._pinged_at = now
            self.send([Kind.PING, 0])
        self._ping_timer = self.loop.call_later(probe, self._ping)

    def _on_pong(self, message: list[Any]) -> None:
        _, serving, state, keys = checks.fields(message, 4)
        self.client.measured(self.loop.time() - self._pinged_at)
        self._pinged_at = 0.0
        self.client.told(
            checks.flag(serving), checks.text(state, 1024), checks.optional_number(keys)
        )

    # -- answers

    def _on_welcome(self, message: list[Any]) -> None:
        (version,) = checks.fields(message, 1)
        if version != VERSION or self.welcomed:
            raise LinkError(f"version {version} of the link instead of {VERSION}")
        self.welcomed = True
        self.client.came(self)
        self._pinged_at = self.loop.time()
        self.send([Kind.PING, 0])

    def _on_refused(self, message: list[Any]) -> None:
        _, reason = checks.fields(message, 2)
        self.drop(f"refused: {checks.text(reason)}")

    def _on_response(self, message: list[Any]) -> None:
        request, plain = checks.fields(message, 2)
        call = self._take(request)
        try:
            result = self._reader.read(call.operation, plain)
        except LinkError:
            # The connection ends, and this request with it.
            self.calls[request] = call
            raise
        call.future.set_result(result)

    def _on_error(self, message: list[Any]) -> None:
        request, code, text = checks.fields(message, 3)
        failure = results.error_from_plain(code, text)
        self._take(request).future.set_exception(failure)

    def _take(self, request: Any) -> Call:
        call = self.calls.pop(checks.number(request), None)
        if call is None:
            raise LinkError("an answer to a request that was never sent")
        return call

    # -- streams

    def _on_upload_credit(self, message: list[Any]) -> None:
        identity, amount = checks.fields(message, 2)
        upload = self.uploads.get(checks.number(identity))
        if upload is not None:
            upload.grant(checks.number(amount))

    def _on_upload_error(self, message: list[Any]) -> None:
        identity, code, text = checks.fields(message, 3)
        upload = self.uploads.get(checks.number(identity))
        failure = results.error_from_plain(code, text)
        if upload is not None:
            upload.fail(failure)

    def _open_download(self, identity: int, length: int) -> Download:
        if identity in self.downloads:
            raise LinkError("a download id is used twice")
        download = IncomingDownload(self, identity, length)
        self.downloads[identity] = download
        return download

    def _on_piece(self, message: list[Any]) -> None:
        identity, piece = checks.fields(message, 2)
        download = self.downloads.get(checks.number(identity))
        if download is not None:
            download.receive(checks.octets(piece))

    def _on_piece_error(self, message: list[Any]) -> None:
        identity, code, text = checks.fields(message, 3)
        download = self.downloads.get(checks.number(identity))
        failure = results.error_from_plain(code, text)
        if download is not None:
            download.fail(failure)
