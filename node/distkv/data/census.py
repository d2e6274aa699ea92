"""How many records are coded otherwise than the newest layout wants, exactly, as it changes.

A record is under-coded if it has fewer data shards than the layout (members were down or slow
when it was written), or is of an older layout epoch. One survey over all records begins the
count; from then on every entry that is applied says what came and what went.
"""

from __future__ import annotations

from distkv.data.meter import Meter
from distkv.data.ports import Applied
from distkv.ids import ValueId
from distkv.kernel import Kernel
from distkv.machine.interface import Named, Record, Superseded
from distkv.storage.base import CorruptRow


def record_of(applied: Applied, value_id: ValueId) -> tuple[bytes | None, Record | None]:
    """Key and record that name a value; no record if its row is rotten."""
    key = applied.key_of(value_id)
    try:
        record = None if key is None else applied.record(key)
    except CorruptRow:
        record = None
    if record is not None and record.value_id != value_id:
        record = None
    return key, record


class Census:
    """`records` and `bytes` mean nothing before `known`. While a survey runs, what is named
    behind its cursor is counted by events, what is ahead of it by the survey."""

    def __init__(self, kernel: Kernel, applied: Applied) -> None:
        self.records = 0
        self.bytes = 0
        self.known = False
        self.meter = Meter()
        """Bytes of under-coded values that were superseded, by re-striping mostly."""
        self._kernel = kernel
        self._applied = applied
        self._cursor = b""
        self._survey = 0

    def wants(self, record: Record) -> bool:
        """Whether the newest layout would code it otherwise."""
        configuration = self._applied.configuration
        return record.value_id is not None and (
            record.data_shards != configuration.data_shards or record.epoch != configuration.epoch
        )

    def named(self, event: Named) -> bool:
        """An entry named a value; True if it is under-coded."""
        record = event.record
        if record is None or not self.wants(record):
            return False
        self._add(event.value_id, record, 1)
        return True

    def superseded(self, event: Superseded) -> None:
        """An entry took a value's name away."""
        record = event.record
        if record is None:
            self.restart()
        elif self.wants(record):
            self._add(event.value_id, record, -1)

    def _add(self, value_id: ValueId, record: Record, sign: int) -> None:
        if sign < 0:
            self.meter.add(self._kernel.now, record.length)
        if self.known or value_id.pack() < self._cursor:
            self.records += sign
            self.bytes += sign * record.length

    def restart(self) -> None:
        """The layout changed, or records went that nobody looked at: count again."""
        self.known = False
        self.records = self.bytes = 0
        self._cursor = b""
        self._survey += 1

    async def survey(self, records_per_step: int, step_seconds: float) -> bool:
        """Count all records. False: it was made void by `restart` meanwhile."""
        self.restart()
        survey = self._survey
        while True:
            page = self._applied.values(self._cursor, records_per_step)
            for raw in page:
                record = record_of(self._applied, ValueId.unpack(raw))[1]
                if record is not None and self.wants(record):
                    self.records += 1
                    self.bytes += record.length
            if self._survey != survey:
                return False
            if len(page) < records_per_step:
                self.known = True
                return True
            self._cursor = page[-1] + b"\0"
            await self._kernel.sleep(step_seconds)
            if self._survey != survey:
                return False
