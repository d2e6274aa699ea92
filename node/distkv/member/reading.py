"""Answering reads from the own applied state, once a read index says it is fresh enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.errors import Busy, Corrupt, DeadlineExceeded, DistKVError
from distkv.kernel import Future, TimedOut
from distkv.machine.interface import Record
from distkv.operations import (
    Count,
    Get,
    GetMany,
    Meta,
    Page,
    Scan,
    Stat,
    Value,
)
from distkv.storage.base import CorruptRow

if TYPE_CHECKING:
    from distkv.member.seat import Seat

Read = Get | GetMany | Stat | Scan | Count

MEND_SECONDS = 0.05
"""A row that was rotten is read again so soon after it was mended."""

SCAN_LIMIT_MAX = 10_000
"""Keys of one page: a scan runs in one turn, and a turn must stay short."""


def meta_of(record: Record) -> Meta:
    """What a client sees of a record without its value."""
    return Meta(record.version, record.length, record.expires_ms, record.value is None)


class ReadServer:
    """Executes read operations."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def execute(self, operation: Read, deadline: float, future: Future[object]) -> None:
        """Start it; `future` gets the result or a DistKVError."""
        if type(operation) is Get and operation.stale:
            self._serve(operation, deadline, future)
            return
        seat = self._seat
        if len(seat.reads) >= seat.options.pending_reads_max:
            future.set_exception(
                Busy(f"pending_reads_max ({seat.options.pending_reads_max}) reads wait already")
            )
            return

        def fresh(waited: Future[None]) -> None:
            if waited.error is not None:
                future.set_exception(waited.error)
            else:
                self._serve(operation, deadline, future)

        seat.reads.wait(deadline).add_callback(fresh)

    def _serve(self, operation: Read, deadline: float, future: Future[object]) -> None:
        try:
            self._answer(operation, deadline, future)
        except CorruptRow as rot:
            self._seat.healer.met(rot)
            self._seat.spawn(self._when_healed(operation, deadline), future)

    async def _when_healed(self, operation: Read, deadline: float) -> object:
        """The own copy of a row was rotten: answer once it is mended."""
        while True:
            again: Future[object] = Future()
            try:
                self._answer(operation, deadline, again)
            except CorruptRow as rot:
                await self._mend(rot, deadline)
                continue
            return await again

    async def _mend(self, rot: CorruptRow, deadline: float) -> None:
        """Have a row mended. Raises `Healer.too_late` at the deadline."""
        seat, healer = self._seat, self._seat.healer
        if seat.kernel.now >= deadline:
            raise healer.too_late() from rot
        healer.met(rot)
        if not await healer.wait((rot.table, rot.key), deadline):
            await seat.kernel.sleep(MEND_SECONDS)

    async def _record(self, key: bytes, deadline: float) -> Record | None:
        """The record of a key, once its row is sound."""
        while True:
            try:
                return self._seat.machine.record(key)
            except CorruptRow as rot:
                await self._mend(rot, deadline)

    def _answer(self, operation: Read, deadline: float, future: Future[object]) -> None:
        machine = self._seat.machine
        if type(operation) is Get:
            record = machine.record(operation.key)
            if record is None:
                future.set_result(None)
            elif record.value is not None:
                future.set_result(Value(meta_of(record), record.value))
            else:
                self._seat.spawn(self._get(operation.key, record, deadline), future)
        elif type(operation) is Stat:
            records = [machine.record(key) for key in operation.keys]
            future.set_result([None if r is None else meta_of(r) for r in records])
        elif type(operation) is Scan:
            future.set_result(self._scan(operation))
        elif type(operation) is Count:
            future.set_result(machine.count())
        elif type(operation) is GetMany:
            self._seat.spawn(self._many(operation.keys, deadline), future)

    def _scan(self, scan: Scan) -> Page:
        limit = max(1, min(scan.limit, SCAN_LIMIT_MAX))
        rows = self._seat.machine.scan(scan.start, scan.end, scan.prefix, limit + 1)
        more = rows[limit][0] if len(rows) > limit else None
        return Page([(key, meta_of(record)) for key, record in rows[:limit]], more)

    async def _many(self, keys: tuple[bytes, ...], deadline: float) -> object:
        values: list[object] = []
        for key in keys:
            record = await self._record(key, deadline)
            if record is None:
                values.append(None)
            elif record.value is not None:
                values.append(Value(meta_of(record), record.value))
            else:
                values.append(await self._get(key, record, deadline, whole=True))
        return values

    async def _get(
        self, key: bytes, record: Record, deadline: float, whole: bool = False
    ) -> Value | None:
        """The value of a coded record, or of what replaced it meanwhile."""
        seat = self._seat
        streamed = record.length > seat.options.stream_above and not whole
        patience = deadline - seat.kernel.now

        async def refresh() -> Record | None:
            until = seat.kernel.now + patience if streamed else deadline
            await seat.reads.wait(until)
            return await self._record(key, until)

        if streamed:
            return Value(meta_of(record), seat.data.reader.stream(record, patience, refresh))

        found, data = await seat.data.reader.read_current(record, refresh, deadline)
        if found is None:
            return None
        if found.value is not None:
            return Value(meta_of(found), found.value)
        return Value(meta_of(found), data)

    async def whole(self, key: bytes, deadline: float) -> Value | None:
        """The current value as bytes, from a new read index."""
        await self._seat.reads.wait(deadline)
        record = await self._record(key, deadline)
        if record is None:
            return None
        if record.value is not None:
            return Value(meta_of(record), record.value)
        return await self._get(key, record, deadline, whole=True)

    def value_of(self, record: Record, deadline: float) -> Future[Value]:
        """The value of a record that was just superseded: its shards are in their grace."""
        return self._seat.kernel.spawn(self._value_of(record, deadline))

    async def _value_of(self, record: Record, deadline: float) -> Value:
        data = await self._seat.data.reader.read(record, deadline)
        return Value(meta_of(record), data)


def as_client_error(error: BaseException) -> DistKVError | None:
    """What a flow raised, as an error for the client; None if it is a bug."""
    if isinstance(error, DistKVError):
        return error
    if isinstance(error, TimedOut):
        return DeadlineExceeded("the deadline passed")
    if isinstance(error, CorruptRow):
        return Corrupt(f"{error}; it is being mended, ask another node or try again")
    return None
