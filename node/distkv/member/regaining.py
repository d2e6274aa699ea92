"""A node without a state: the swap for a peer's was broken off, and a staged piece has rotted.

The old state is gone in part, so it asks its peers for another one, and has no seat until that is
installed: it promises, accepts, votes and applies nothing, and what it promised and accepted stays
as it is on its disk. The state that was half installed was not older than the lost one, so one
that is not older than that either covers every slot of which this node has forgotten the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.machine.snapshot import installing_slot
from distkv.member.staging import StageLost, Transfer, finish_install
from distkv.storage.base import StorageError, StorageFull

if TYPE_CHECKING:
    from distkv.member.member import Member as Owner

WAIT_SECONDS = 0.5
"""Before the next peer is asked."""


class Regaining(Transfer):
    """See the module. Calls `owner.sit_once_durable` at the end."""

    def __init__(self, owner: Owner, lost: StageLost) -> None:
        """Raises StorageError if it is not known how old a state would do."""
        super().__init__(owner)
        slot = installing_slot(owner.engine)
        if slot is None:  # half installed by a version that did not write it down
            raise StorageError(
                f"{lost}, the state of this directory is half installed, and it is not known how "
                "new a peer's must be to take its place; wipe the directory and have the node "
                "replaced"
            ) from lost
        self._slot = slot
        self._ask_at = 0.0
        self._next = 0
        owner.suspect("own disk", "rotten row", str(lost))

    def poll(self, now: float) -> None:
        """Ask one peer after the other."""
        if self.active:
            self._ask_again(now)
            return
        up = sorted(self._owner.peers.up)
        if up and now >= self._ask_at:
            self._ask_at = now + WAIT_SECONDS
            self._next += 1
            self._begin(up[self._next % len(up)], now)

    def _least(self) -> int:
        return self._slot

    def _complete(self, slot: int) -> None:
        try:
            finish_install(self._owner.engine)
        except StageLost as lost:
            self._owner.suspect("own disk", "rotten row", str(lost))
            self.drop_stage()
        except StorageFull:
            return  # as before, and asked for anew
        else:
            self._owner.sit_once_durable()
