"""What a node said of itself in this round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NodeReport:
    """`status`: the document of /v1/admin/status, empty if the node did not answer."""

    reason: str = "it was not asked"
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self.status)

    @property
    def cluster(self) -> str:
        """Cluster id, 32 hexadecimal digits."""
        return str(self.status.get("cluster") or "")

    @property
    def incarnation(self) -> int | None:
        """Which data directory it really has."""
        found = self.status.get("incarnation")
        return found if isinstance(found, int) else None

    @property
    def is_founded(self) -> bool:
        """Whether it knows the list of members."""
        return bool(self.status.get("layout"))

    @property
    def is_formed(self) -> bool:
        """Whether the formation is in its log."""
        return bool(self.status.get("formed"))

    @property
    def is_serving(self) -> bool:
        """Whether it takes reads and writes."""
        return bool(self.status.get("serving"))

    @property
    def state(self) -> str:
        """One word or two, the node's own."""
        return str(self.status.get("state") or "")

    @property
    def detail(self) -> str:
        """One sentence, the node's own."""
        return str(self.status.get("detail") or "")

    @property
    def role(self) -> str:
        """leader, follower, candidate or none."""
        return str(self.status.get("role") or "none")

    @property
    def leader(self) -> int | None:
        """Whom it follows."""
        found = self.status.get("leader")
        return found if isinstance(found, int) else None

    @property
    def applied(self) -> int:
        """Slots of the log it has applied."""
        return _whole(self.status.get("applied"))

    @property
    def shards(self) -> int:
        """Shards it holds."""
        return _whole(self.status.get("shards"))

    @property
    def missing(self) -> int | None:
        """Shards it should hold and does not; None: it has yet to look, or did not answer."""
        found = self.status.get("shards_missing")
        return None if found is None else _whole(found)

    @property
    def survives(self) -> int | None:
        """How many more disks may be lost, by this node's picture of all; None: it is not sure."""
        found = self._view.get("survives")
        durable = found.get("durable") if isinstance(found, Mapping) else None
        return None if durable is None else _whole(durable)

    def is_whole(self, ordinal: int, incarnation: int) -> bool:
        """Whether this node knows another one to be there and to lack nothing."""
        for row in self._view.get("members") or []:
            if (row.get("ordinal"), row.get("incarnation")) == (ordinal, incarnation):
                return bool(row.get("up")) and row.get("shards_missing") == 0
        return False

    @property
    def _view(self) -> Mapping[str, Any]:
        found = self.status.get("cluster_view")
        return found if isinstance(found, Mapping) else {}

    @property
    def under_coded(self) -> int:
        """Records coded with fewer data shards than the layout wants."""
        return _whole(self.status.get("under_coded"))

    @property
    def layout(self) -> Mapping[str, Any]:
        """Epoch, data_shards, parity_shards, members as it knows them."""
        found = self.status.get("layout")
        return found if isinstance(found, Mapping) else {}

    @property
    def epoch(self) -> int:
        """Layout epoch."""
        return _whole(self.layout.get("epoch"))

    def member(self, ordinal: int) -> int | None:
        """Incarnation that has the seat, as this node knows."""
        for entry in self.layout.get("members") or []:
            if entry[0] == ordinal:
                return int(entry[1])
        return None


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
