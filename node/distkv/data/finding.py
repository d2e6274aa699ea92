"""Making sure of losses: that a value is really gone, and whether it was found again."""

from __future__ import annotations

from distkv.data.census import record_of
from distkv.data.gather import ShardsGone
from distkv.data.losses import Losses
from distkv.data.ports import Applied, Coordinator
from distkv.data.reader import Reader
from distkv.errors import DistKVError
from distkv.ids import ValueId
from distkv.kernel import Kernel

CONFIRM_SECONDS = 5.0
READ_SECONDS = 30.0
"""The next stripe of a value must come within this time."""
LOOKED_AT_MAX = 1000
"""Values on the list that are looked for again at once."""


class Finder:
    """Flows beside reads and repair; at most one of each kind at a time."""

    def __init__(
        self,
        kernel: Kernel,
        applied: Applied,
        coordinator: Coordinator,
        reader: Reader,
        losses: Losses,
    ) -> None:
        self._kernel = kernel
        self._applied = applied
        self._coordinator = coordinator
        self._reader = reader
        self._losses = losses
        self._suspected: dict[ValueId, tuple[int, int]] = {}
        self._looking = False

    def suspect(self, value_id: ValueId, gone: ShardsGone, data_shards: int) -> None:
        """Repair found too few shards of a value that the own applied state names."""
        if gone.silent or value_id in self._losses:
            return
        self._suspected[value_id] = (gone.shards, data_shards)
        if len(self._suspected) == 1:
            self._kernel.spawn(self._confirm())

    async def _confirm(self) -> None:
        """The own state may be old, and its peers right to have dropped the shards."""
        try:
            await self._coordinator.current(self._kernel.now + CONFIRM_SECONDS)
        except DistKVError:
            self._suspected.clear()
            return
        suspected, self._suspected = self._suspected, {}
        for value_id, (shards, data_shards) in suspected.items():
            self._losses.note(value_id, shards, data_shards)

    def look_again(self) -> None:
        """A member came up: it may bring what was missed."""
        if len(self._losses) and not self._looking:
            self._looking = True
            self._kernel.spawn(self._look())

    async def _look(self) -> None:
        try:
            for lost in self._losses.listing(LOOKED_AT_MAX):
                await self._read(lost.value_id)
        finally:
            self._looking = False

    async def _read(self, value_id: ValueId) -> None:
        record = record_of(self._applied, value_id)[1]
        if record is None:
            return
        stream = self._reader.stream(record, READ_SECONDS)
        try:
            while await stream.take():
                pass
            self._losses.off(value_id)
        except DistKVError:
            return
        finally:
            stream.close()
