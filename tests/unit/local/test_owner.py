"""The owner founds exactly once, whatever line it dies at (protocol: formation)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distkv.local.ask import Answer
from distkv.local.directory import Directory, Identity, Ownership
from distkv.local.errors import LocalError
from distkv.local.owner import Owner


class Dies(BaseException):
    """The supervisor is killed here."""


class Nodes:
    """What nodes answer their owner; `calls` are the commands they carried out."""

    def __init__(self, directory: Directory, incarnations: list[int]) -> None:
        self.directory = directory
        self.incarnations = incarnations
        self.calls: list[tuple[str, Any]] = []
        self.founders: Any = None
        self.formed = False
        self.down: set[int] = set()
        self.steps_to_live = 10_000
        self.seen: list[Ownership] = []

    async def ask(self, ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        self.step()
        if ordinal in self.down:
            self.down.discard(ordinal)
            return Answer(0, "refused")
        if path == "/v1/admin/identity":
            return Answer(200, {"incarnation": self.incarnations[ordinal]})
        self.seen.append(self.directory.ownership())
        self.calls.append((path, body))
        if path == "/v1/admin/found":
            assert ordinal == 0
            if self.founders not in (None, body["members"]):
                return Answer(400, {"error": "bad_request", "message": "founded already"})
            self.founders = body["members"]
        else:
            assert path == "/v1/admin/formed"
            assert self.founders is not None
            self.formed = True
        self.step()
        return Answer(200, {})

    async def status(self, ordinal: int) -> Answer:
        self.step()
        return Answer(200, {"formed": self.formed})

    def step(self) -> None:
        self.steps_to_live -= 1
        if self.steps_to_live < 0:
            raise Dies

    def owner(self) -> Owner:
        return Owner(self.directory, self.ask, self.status)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    found = Directory(tmp_path)
    found.create(Identity("a", "ab" * 16, 2, 1, 7000, None, {}))
    return found


def run(nodes: Nodes) -> None:
    asyncio.run(nodes.owner().form())


def test_a_new_cluster_is_founded_with_every_incarnation_and_then_formed(
    directory: Directory,
) -> None:
    nodes = Nodes(directory, [11, 12, 13])
    run(nodes)
    owner = directory.ownership().owner
    found, formed = nodes.calls
    assert found == (
        "/v1/admin/found",
        {
            "cluster_id": "ab" * 16,
            "owner": owner,
            "layout": {"data_shards": 2, "parity_shards": 1},
            "members": [(0, 11), (1, 12), (2, 13)],
        },
    )
    assert formed == ("/v1/admin/formed", {"cluster_id": "ab" * 16, "owner": owner})


def test_promises_are_durable_before_they_are_acted_on(directory: Directory) -> None:
    nodes = Nodes(directory, [11, 12, 13])
    run(nodes)
    at_found, at_formed = nodes.seen
    assert at_found.founders == [(0, 11), (1, 12), (2, 13)]
    assert not at_found.formed
    assert at_formed.formed


def test_dying_at_any_step_founds_the_same_cluster_once(tmp_path: Path) -> None:
    steps = 0
    while True:
        directory = Directory(tmp_path / str(steps))
        directory.path.mkdir()
        directory.create(Identity("a", "ab" * 16, 2, 1, 7000, None, {}))
        nodes = Nodes(directory, [11, 12, 13])
        nodes.steps_to_live = steps
        try:
            run(nodes)
        except Dies:
            nodes.steps_to_live = 10_000
            run(nodes)
            assert nodes.formed
            assert nodes.founders == [(0, 11), (1, 12), (2, 13)]
            founded = [body for path, body in nodes.calls if path == "/v1/admin/found"]
            assert all(body == founded[0] for body in founded)
        else:
            break
        steps += 1
    assert steps > 6


def test_a_formed_cluster_is_never_founded_again_whatever_its_disks_say(
    directory: Directory,
) -> None:
    directory.write_ownership(Ownership("o", [(0, 1), (1, 2), (2, 3)], formed=True))
    nodes = Nodes(directory, [77, 78, 79])
    nodes.founders = [(0, 1), (1, 2), (2, 3)]
    run(nodes)
    assert [path for path, _ in nodes.calls] == ["/v1/admin/formed"]


def test_a_disk_made_anew_while_founding_is_refused(directory: Directory) -> None:
    directory.write_ownership(Ownership("o", [(0, 11), (1, 12), (2, 13)]))
    nodes = Nodes(directory, [11, 99, 13])
    with pytest.raises(LocalError, match="directory of node 1 was made anew"):
        run(nodes)
    assert nodes.calls == []


def test_nodes_that_do_not_answer_yet_are_waited_for(directory: Directory) -> None:
    nodes = Nodes(directory, [11, 12, 13])
    nodes.down = {0, 2}
    run(nodes)
    assert nodes.formed


def test_a_refusal_that_would_come_again_ends_it(directory: Directory) -> None:
    nodes = Nodes(directory, [11, 12, 13])
    nodes.founders = [(0, 1)]
    with pytest.raises(LocalError, match="founded already"):
        run(nodes)
    assert not directory.ownership().formed
