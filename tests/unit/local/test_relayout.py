"""The owner's part in a change of layout, against a cluster that is only told of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distkv.local.ask import Answer
from distkv.local.directory import Directory, Identity, Layout
from distkv.local.errors import LocalError
from distkv.local.relayout import Relayout


class Killed(BaseException):
    """The supervisor ended here."""


class Cluster:
    """Nodes, their processes and a leader; implements relayout.Hands."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.processes = 5
        self.epoch, self.k, self.m = 1, 3, 2
        self.seats = [100 + i for i in range(5)]
        """Of all layouts that live."""
        self.old: list[int] = []
        """Sizes of older layouts that live."""
        self.left = 0
        self.used: set[int] = set()
        """Ordinals of running nodes that left with an older layout."""
        self.removed: list[int] = []
        self.present: dict[int, int] = {}
        """Incarnations that the leader has not noticed yet."""
        self.asked: list[dict[str, Any]] = []
        self.silent = False
        """Requests for a layout are proposed and not answered; nothing of them is applied."""
        self.kill_after = -1

    @property
    def size(self) -> int:
        return self.k + self.m

    def is_running(self, ordinal: int) -> bool:
        return ordinal < self.processes

    def check_ports(self, nodes: int) -> None:
        if nodes > 8:
            raise LocalError("a port is taken")

    def resize(self, nodes: int) -> None:
        self._die_perhaps()
        self.processes = max(self.processes, nodes)

    async def remove(self, ordinal: int) -> None:
        self._die_perhaps()
        assert ordinal == self.processes - 1
        assert ordinal >= max([self.size, *self.old]), "its shards are still needed"
        self.processes -= 1
        self.used.discard(ordinal)
        self.removed.append(ordinal)
        self._die_perhaps()

    def _die_perhaps(self) -> None:
        self.kill_after -= 1
        if self.kill_after == 0:
            raise Killed

    async def ask_admin(self, ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        self._die_perhaps()
        if path == "/v1/admin/identity":
            return Answer(200, {"incarnation": self.present.get(ordinal, 100 + ordinal)})
        if method == "GET":
            return Answer(200, self._picture(ordinal))
        assert ordinal == 0
        self.asked.append(body)
        if self.silent:
            return Answer(0, "timed out")
        if not body["again"] and (self.k, self.m) == (body["data_shards"], body["parity_shards"]):
            return Answer(200, {"epoch": self.epoch, "done": True})
        assert body["members"] == list(enumerate(i for _, i in body["members"]))
        self.old.append(self.size)
        self.k, self.m = body["data_shards"], body["parity_shards"]
        members = [incarnation for _, incarnation in body["members"]]
        assert not self.used & set(range(len(members))), "who left is never admitted again"
        self.seats = max(members, self.seats, key=len)
        self.epoch += 1
        self.left = 3
        self._die_perhaps()
        return Answer(200, {"epoch": self.epoch, "done": False})

    def _picture(self, ordinal: int) -> dict[str, Any]:
        self.left = max(0, self.left - 1)
        if not self.left:
            self.old = []
            self.used |= set(range(self.size, len(self.seats)))
            self.seats = self.seats[: self.size]
        seats = list(enumerate(self.seats))
        return {
            "leads": ordinal == 0,
            "epoch": self.epoch,
            "data_shards": self.k,
            "parity_shards": self.m,
            "members": seats[: self.size],
            "leaving": seats[self.size :],
            "waiting": [
                {"ordinal": o, "incarnation": 100 + o, "applied": 9, "caught_up": True}
                | {"removed": o in self.used}
                for o in range(len(seats), self.processes)
            ],
            "changing": bool(self.old),
            "records_left": self.left,
        }


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    directory = Directory(tmp_path)
    directory.create(Identity("test", "ab" * 16, 3, 2, 7000, None, {}))
    directory.write_ownership(directory.ownership()._replace(formed=True))
    return Cluster(directory)


def relayout(cluster: Cluster) -> Relayout:
    return Relayout(cluster.directory, cluster, lambda text: None)


def go_on(cluster: Cluster, steps: int = 50) -> None:
    async def run() -> None:
        change = relayout(cluster)
        for _ in range(steps):
            if cluster.directory.ownership().wanted is None:
                return
            await change.step()

    asyncio.run(run())


def test_a_directory_that_was_removed_gets_no_seat(cluster: Cluster) -> None:
    """Full world 6405369: the leader had not noticed yet that the node came with another."""
    relayout(cluster).want(Layout(4, 2))
    cluster.present[5] = 999
    go_on(cluster, 6)
    assert cluster.asked == []
    del cluster.present[5]
    go_on(cluster)
    assert (cluster.k, cluster.m) == (4, 2)


def test_growing_starts_a_node_and_shrinking_removes_those_that_left(cluster: Cluster) -> None:
    assert "from 3 + 2 to 4 + 2" in relayout(cluster).want(Layout(4, 2))
    assert "under way already" in relayout(cluster).want(Layout(4, 2))
    go_on(cluster)
    assert cluster.directory.ownership().wanted is None
    assert (cluster.k, cluster.m, cluster.processes) == (4, 2, 6)
    assert cluster.directory.identity().layout == Layout(4, 2)
    assert "nothing to do" in relayout(cluster).want(Layout(4, 2))
    relayout(cluster).want(Layout(2, 1))
    go_on(cluster)
    assert cluster.removed == [5, 4, 3]
    assert (cluster.processes, cluster.directory.nodes) == (3, 3)


@pytest.mark.parametrize("after", [-1, *range(1, 20)])
def test_growing_again_when_the_surplus_has_left_but_runs_yet(cluster: Cluster, after: int) -> None:
    """Nodes that an older layout retired with are never admitted again: they begin anew."""
    relayout(cluster).want(Layout(2, 1))
    while not cluster.used:
        go_on(cluster, 1)
    assert cluster.processes == 5
    relayout(cluster).want(Layout(4, 1))
    cluster.kill_after = after
    try:
        go_on(cluster)
    except Killed:
        cluster.kill_after = -1
        go_on(cluster)
    assert cluster.directory.ownership().wanted is None
    assert (cluster.k, cluster.m, cluster.processes) == (4, 1, 5)
    assert set(cluster.removed) == {3, 4}


@pytest.mark.parametrize("after", range(1, 45))
@pytest.mark.parametrize("layout", [Layout(4, 2), Layout(2, 1)])
def test_a_supervisor_killed_anywhere_goes_on(cluster: Cluster, layout: Layout, after: int) -> None:
    relayout(cluster).want(layout)
    cluster.kill_after = after
    try:
        go_on(cluster)
    except Killed:
        cluster.kill_after = -1
        cluster.processes = max(cluster.processes, cluster.directory.nodes)  # `up` starts them
        go_on(cluster)
    assert cluster.directory.ownership().wanted is None
    assert (cluster.k, cluster.m) == layout
    assert cluster.processes == layout.nodes
    assert len(cluster.asked) <= 2


def test_turning_back_ends_a_push_that_may_still_come_true(cluster: Cluster) -> None:
    cluster.silent = True
    relayout(cluster).want(Layout(4, 2))
    go_on(cluster, 3)
    relayout(cluster).want(Layout(3, 2))
    go_on(cluster, 3)
    assert cluster.processes == 6, "the earlier push may be applied yet: node 5 may be a member"
    assert cluster.asked[-1]["again"] is True
    cluster.silent = False
    go_on(cluster)
    assert (cluster.epoch, cluster.k, cluster.m) == (2, 3, 2)
    assert cluster.removed == [5]


def test_turning_back_before_anything_was_pushed_needs_no_epoch(cluster: Cluster) -> None:
    relayout(cluster).want(Layout(4, 2))
    relayout(cluster).want(Layout(3, 2))
    go_on(cluster)
    assert (cluster.epoch, cluster.processes, cluster.asked) == (1, 5, [])


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Layout(0, 2), "at least 1 data shard"),
        (Layout(2, -1), "0 parity shards"),
        (Layout(9, 4), "at most 12"),
        (Layout(7, 3), "a port is taken"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_before_anything_changes(
    cluster: Cluster, layout: Layout, text: str
) -> None:
    before = cluster.directory.ownership()
    with pytest.raises(LocalError, match=text):
        relayout(cluster).want(layout)
    assert cluster.directory.ownership() == before
