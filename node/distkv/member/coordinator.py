"""What the data plane may ask of the member it is part of (`data.ports.Coordinator`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.data.ports import Dispersed
from distkv.ids import Ballot, ValueId
from distkv.kernel import Future
from distkv.member import restriping
from distkv.storage.base import Table

if TYPE_CHECKING:
    from distkv.member.seat import Seat


class SeatCoordinator:
    """The seat, as the data plane sees it."""

    def __init__(self, seat: Seat) -> None:
        self.member = seat.member
        self.boot = seat.boot
        self._seat = seat

    def stamp(self) -> Ballot:
        """The highest ballot known to lead."""
        return self._seat.replica.ballot

    def wall_ms(self) -> int:
        """This node's clock, ms since 1970."""
        return self._seat.owner.wall_ms

    def current(self, deadline: float) -> Future[None]:
        """Done once the applied state is as new as the cluster's is now."""
        return self._seat.reads.wait(deadline)

    def restripe(
        self, key: bytes, old: ValueId, dispersed: Dispersed, deadline: float
    ) -> Future[bool]:
        """Put a value that was coded anew in the place of the old one."""
        return restriping.submit(self._seat, key, old, dispersed, deadline)

    def rotten(self, table: Table, key: bytes) -> None:
        """A row that is not a shard's fails its checksum."""
        self._seat.healer.on_rot(table, key)

    def fatal(self, error: BaseException) -> None:
        """A background flow failed in a way that it should not."""
        self._seat.owner.fatal(error)
