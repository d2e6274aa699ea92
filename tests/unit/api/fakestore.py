"""A faithful in-memory `operations.Store`: versions, expiry, conditions, sessions, streams.

Answers in a later turn of the loop, as a member does. Delays and errors can be injected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sortedcontainers import SortedDict

from distkv import operations as op
from distkv.errors import (
    BadRequest,
    ConditionFailed,
    DeadlineExceeded,
    DistKVError,
    OutcomeUnknown,
    TooLarge,
    UnknownSession,
)
from distkv.kernel import Future

STREAMED_ABOVE = 256 * 1024
PIECE = 64 * 1024


class FakeUpload:
    """Collects; asks to pause every `pause_every` bytes when told to."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.pieces: list[bytes] = []
        self.size = 0
        self.state = "open"
        self.on_resume: Callable[[], None] | None = None
        self.paused = 0

    def write(self, piece: bytes) -> bool:
        assert self.state == "open", self.state
        assert type(piece) is bytes
        self.pieces.append(piece)
        self.size += len(piece)
        self.store.upload_high = max(self.store.upload_high, len(self.store.open_uploads()))
        if self.store.pause_uploads:
            self.paused += 1
            asyncio.get_running_loop().call_soon(self._resume)
            return False
        return True

    def _resume(self) -> None:
        if self.on_resume is not None:
            self.on_resume()

    def finish(self) -> None:
        assert self.state == "open", self.state
        self.state = "finished"

    def abort(self) -> None:
        self.state = "aborted"


class FakeDownload:
    """Pieces of a value, each in a later turn."""

    def __init__(self, store: FakeStore, data: bytes) -> None:
        self.length = len(data)
        self.closed = False
        self._data = data
        self._at = 0
        self._store = store
        store.downloads.append(self)

    def next(self) -> Future[bytes]:
        future: Future[bytes] = Future()
        assert not self.closed
        piece = self._data[self._at : self._at + PIECE]
        self._at += len(piece)

        def deliver() -> None:
            if self._store.fail_download_at is not None and self._at > self._store.fail_download_at:
                future.set_exception(DistKVError("injected: a shard is gone"))
            future.set_result(piece)

        asyncio.get_running_loop().call_soon(deliver)
        return future

    def close(self) -> None:
        self.closed = True


class Row:
    def __init__(self, value: bytes, version: int, expires: int | None) -> None:
        self.value = value
        self.version = version
        self.expires = expires


class FakeStore:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.rows: SortedDict[bytes, Row] = SortedDict()
        self.expiring: set[bytes] = set()
        self.revision = 100
        self.wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self.delay: float | None = 0.0
        """Seconds until an answer; None: never (the deadline ends it)."""
        self.fail: Callable[[op.Operation], DistKVError | None] = lambda _: None
        self.after_apply: Callable[[op.Operation], DistKVError | None] = lambda _: None
        self.uploads: list[FakeUpload] = []
        self.downloads: list[FakeDownload] = []
        self.pause_uploads = False
        self.refuse_upload: DistKVError | None = None
        self.fail_download_at: int | None = None
        self.upload_high = 0
        self.executed: list[op.Operation] = []
        self.sessions: dict[bytes, dict[int, Any]] = {}
        self.open_sessions: set[bytes] = set()
        self.info: dict[str, object] = {"ready": True, "state": "serving"}
        self.in_flight = 0
        self.in_flight_high = 0

    def open_uploads(self) -> list[FakeUpload]:
        return [upload for upload in self.uploads if upload.state == "open"]

    # -- Store

    def now(self) -> float:
        return self.loop.time()

    def status(self) -> dict[str, object]:
        return {**self.info, "keys": len(self.rows)}

    def health(self) -> dict[str, object]:
        return self.status()

    def upload(self, length: int | None) -> op.Upload:
        if self.refuse_upload is not None:
            raise self.refuse_upload
        if length is not None and length > 512 * 1024 * 1024:
            raise TooLarge("value_max")
        upload = FakeUpload(self)
        self.uploads.append(upload)
        return upload

    def execute(self, operation: op.Operation, deadline: float) -> Future[object]:
        future: Future[object] = Future()
        self.executed.append(operation)
        self.in_flight += 1
        self.in_flight_high = max(self.in_flight_high, self.in_flight)
        left = max(deadline - self.loop.time(), 0)
        if self.delay is None or self.delay > left:
            error: DistKVError = DeadlineExceeded("nothing answered")
            if isinstance(operation, op.Write):
                error = OutcomeUnknown("nothing answered")
            self.loop.call_later(left, self._settle, future, error)
        elif self.delay:
            self.loop.call_later(self.delay, self._run, future, operation)
        else:
            self.loop.call_soon(self._run, future, operation)
        return future

    def _settle(self, future: Future[object], outcome: object) -> None:
        self.in_flight -= 1
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _run(self, future: Future[object], operation: op.Operation) -> None:
        outcome: object
        try:
            error = self.fail(operation)
            if error is not None:
                raise error
            outcome = self.apply(operation)
            error = self.after_apply(operation)
            if error is not None:
                raise error
        except DistKVError as failure:
            outcome = failure
        self._settle(future, outcome)

    # -- the model

    def apply(self, operation: op.Operation) -> object:
        self._expire()
        if isinstance(operation, op.Write):
            return self._write(operation)
        if isinstance(operation, op.Get):
            return self._value(operation.key)
        if isinstance(operation, op.GetMany):
            return [self._value(key) for key in operation.keys]
        if isinstance(operation, op.Stat):
            return [self._meta(key) for key in operation.keys]
        if isinstance(operation, op.Scan):
            return self._scan(operation)
        if isinstance(operation, op.Count):
            return len(self.rows)
        self.open_sessions.add(operation.session)
        self.sessions.setdefault(operation.session, {})
        return True

    def _expire(self) -> None:
        now = self.wall_ms()
        for key in sorted(self.expiring):
            row = self.rows.get(key)
            if row is None or row.expires is None:
                self.expiring.discard(key)
            elif row.expires <= now:
                del self.rows[key]

    def _meta(self, key: bytes) -> op.Meta | None:
        row = self.rows.get(key)
        if row is None:
            return None
        return op.Meta(row.version, len(row.value), row.expires, len(row.value) > 4096)

    def _value(self, key: bytes) -> op.Value | None:
        meta = self._meta(key)
        if meta is None:
            return None
        data = self.rows[key].value
        if len(data) > STREAMED_ABOVE:
            return op.Value(meta, FakeDownload(self, data))
        return op.Value(meta, data)

    def _scan(self, scan: op.Scan) -> op.Page:
        start = max(scan.start, scan.prefix)
        found: list[tuple[bytes, op.Meta]] = []
        for key in self.rows.irange(minimum=start):
            if (scan.end is not None and key >= scan.end) or not key.startswith(scan.prefix):
                break
            if len(found) == scan.limit:
                return op.Page(found, key)
            meta = self._meta(key)
            assert meta is not None
            found.append((key, meta))
        return op.Page(found, None)

    def _write(self, write: op.Write) -> list[object]:
        done = self.sessions.setdefault(write.session, {}) if write.session is not None else {}
        if write.session is not None:
            known = done.get(write.sequence)
            if known is not None:
                if isinstance(known, DistKVError):
                    raise known
                return list(known)
            if write.session[:2] != b"\0K" and write.session not in self.open_sessions:
                raise UnknownSession("no such session")
        keys = [getattr(mutation, "key", b"") for mutation in write.mutations]
        saved = {k: Row(r.value, r.version, r.expires) for k in keys if (r := self.rows.get(k))}
        try:
            for mutation in write.mutations:
                self._check(mutation)
            results = [self._mutate(mutation) for mutation in write.mutations]
        except DistKVError as failure:
            for key in keys:
                self.rows.pop(key, None)
            self.rows.update(saved)
            if write.session is not None:
                done[write.sequence] = failure
            raise
        if write.session is not None:
            done[write.sequence] = results
            for old in [s for s in done if s < write.low]:
                del done[old]
        return results

    def _check(self, mutation: op.Mutation) -> None:
        condition = getattr(mutation, "condition", op.ANYTHING)
        row = self.rows.get(getattr(mutation, "key", b""))
        met = {
            op.Must.ANYTHING: True,
            op.Must.BE_ABSENT: row is None,
            op.Must.BE_PRESENT: row is not None,
            op.Must.HAVE_VERSION: row is not None and row.version == condition.version,
            op.Must.NOT_HAVE_VERSION: row is None or row.version != condition.version,
        }[condition.must]
        if not met:
            raise ConditionFailed("the condition on the key is not met")

    def _at(self, expiry: op.Expiry, old: Row | None) -> int | None:
        if expiry.keep:
            return old.expires if old else None
        if expiry.after_ms is not None:
            return self.wall_ms() + expiry.after_ms
        return expiry.at_ms

    def _mutate(self, m: op.Mutation) -> object:
        self.revision += 1
        if isinstance(m, op.Put | op.Expire) and m.expiry != op.NEVER:
            self.expiring.add(m.key)
        if isinstance(m, op.Flush):
            count = len(self.rows)
            self.rows.clear()
            return count
        old = self.rows.get(m.key)
        if isinstance(m, op.Put):
            previous = self._value(m.key) if m.previous else None
            if isinstance(m.value, bytes):
                value = m.value
            else:
                upload: Any = m.value
                assert upload.state == "finished", upload.state
                value = b"".join(upload.pieces)
            self.rows[m.key] = Row(value, self.revision, self._at(m.expiry, old))
            return op.Written(self.revision, old is not None, previous)
        if isinstance(m, op.Delete):
            previous = self._value(m.key) if m.previous else None
            self.rows.pop(m.key, None)
            return op.Written(0, old is not None, previous)
        if isinstance(m, op.Check):
            return True
        if isinstance(m, op.Expire):
            return self._expire_key(m, old)
        if isinstance(m, op.Append):
            value = (old.value if old else b"") + m.piece
            self.rows[m.key] = Row(value, self.revision, old.expires if old else None)
            return len(value)
        return self._increment(m, old)

    def _expire_key(self, m: op.Expire, old: Row | None) -> bool:
        if old is None:
            return False
        at = self._at(m.expiry, old)
        if m.expiry == op.NEVER:
            changed = old.expires is not None
            old.expires = None
            return changed
        assert at is not None
        allowed = {
            op.ExpireMode.ALWAYS: True,
            op.ExpireMode.ONLY_WITHOUT: old.expires is None,
            op.ExpireMode.ONLY_WITH: old.expires is not None,
            op.ExpireMode.ONLY_LATER: old.expires is not None and at > old.expires,
            op.ExpireMode.ONLY_SOONER: old.expires is None or at < old.expires,
        }[m.mode]
        if allowed:
            old.expires = at
            self._expire()
        return allowed

    def _increment(self, m: op.Increment | op.IncrementFloat, old: Row | None) -> object:
        text = old.value if old else b"0"
        expires = old.expires if old else None
        if isinstance(m, op.Increment):
            try:
                number = int(text) + m.delta
            except ValueError:
                raise BadRequest("value is not an integer or out of range") from None
            if not -(2**63) <= number < 2**63:
                raise BadRequest("increment or decrement would overflow")
            self.rows[m.key] = Row(b"%d" % number, self.revision, expires)
            return number
        result = format((Decimal(text.decode()) + Decimal(m.delta.decode())).normalize(), "f")
        self.rows[m.key] = Row(result.encode(), self.revision, expires)
        return result.encode()
