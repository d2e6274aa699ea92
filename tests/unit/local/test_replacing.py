"""Wiped nodes are replaced by the owner that wiped them, whatever line it dies at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distkv.local.ask import Answer
from distkv.local.directory import Directory, Identity, Lost
from distkv.local.replacing import Replacer


class Dies(BaseException):
    """The supervisor is killed here."""


class Nodes:
    """Three nodes as their owner sees them; node 0 leads."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.members = [[ordinal, 100 + ordinal] for ordinal in range(3)]
        self.incarnations = [100, 101, 102]
        self.running = {0, 1, 2}
        self.refusal: Answer | None = None
        self.proposed: list[dict[str, int]] = []
        self.steps_to_live = 10_000
        self.said: list[str] = []
        for ordinal in range(3):
            (directory / f"node-{ordinal}").mkdir()

    def step(self) -> None:
        self.steps_to_live -= 1
        if self.steps_to_live < 0:
            raise Dies

    async def ask(self, ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        self.step()
        if ordinal not in self.running:
            return Answer(0, "connection refused")
        if path == "/v1/admin/identity":
            return Answer(200, {"incarnation": self.incarnations[ordinal]})
        assert (method, path, ordinal) == ("POST", "/v1/admin/replace", 0)
        lost = self.directory.ownership().lost_at(body["ordinal"])
        assert lost == Lost(body["ordinal"], True, body["new"]), "not durable before it acts"
        if self.refusal is not None:
            return self.refusal
        if self.members[body["ordinal"]][1] == body["old"]:
            self.members[body["ordinal"]][1] = body["new"]
            self.proposed.append(body)
        self.step()
        return Answer(200, {"replaced": False})

    async def status(self, ordinal: int) -> Answer:
        self.step()
        role = "leader" if ordinal == 0 else "follower"
        return Answer(
            200, {"role": role, "ballot": [1, 0, 100], "layout": {"members": self.members}}
        )

    def replacer(self) -> Replacer:
        return Replacer(
            self.directory, self.ask, self.status, lambda o: o in self.running, self.said.append
        )

    def wipe(self, ordinal: int, fresh: int) -> Replacer:
        """As the user: kill, wipe, start."""
        self.running.discard(ordinal)
        replacer = self.replacer()
        replacer.wipe(ordinal)
        self.boot(ordinal, fresh)
        return replacer

    def boot(self, ordinal: int, fresh: int) -> None:
        if not self.directory.node(ordinal).exists():
            self.directory.node(ordinal).mkdir()
            self.incarnations[ordinal] = fresh
        self.running.add(ordinal)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    directory = Directory(tmp_path)
    directory.create(Identity("test", "ab" * 16, 2, 1, 7000, None, {}))
    return Nodes(directory)


def look(replacer: Replacer, times: int = 1) -> None:
    for _ in range(times):
        asyncio.run(replacer.look())


def test_a_wiped_node_is_named_to_the_leader_and_forgotten_once_it_is_in(nodes: Nodes) -> None:
    nodes.running.discard(2)
    replacer = nodes.replacer()
    replacer.wipe(2)
    assert not nodes.directory.node(2).exists()
    assert nodes.directory.ownership().lost == (Lost(2, True),)
    stage = replacer.stage(2)
    assert stage is not None
    assert stage.stage == "wiped"
    look(replacer)
    assert nodes.proposed == []
    nodes.boot(2, 202)
    look(replacer)
    owner = nodes.directory.ownership().owner
    assert nodes.proposed == [{"owner": owner, "ordinal": 2, "old": 102, "new": 202}]
    look(replacer)
    assert nodes.directory.ownership().lost == ()
    assert replacer.stage(2) is None
    assert "node-2 is a member again (incarnation 202)" in nodes.said[0]
    look(replacer)
    assert len(nodes.proposed) == 1


def test_an_empty_directory_that_nobody_wiped_is_not_admitted(nodes: Nodes) -> None:
    nodes.incarnations[2] = 999
    replacer = nodes.replacer()
    look(replacer, 3)
    assert nodes.proposed == []
    assert replacer.stage(2) is None


def test_a_directory_made_anew_behind_its_back_is_not_admitted_either(nodes: Nodes) -> None:
    """The wipe was by us and its node was seen; then the disk changed once more, not by us."""
    nodes.refusal = Answer(409, {"error": "not_yet", "message": "has not caught up yet"})
    replacer = nodes.wipe(2, 202)
    look(replacer)
    stage = replacer.stage(2)
    assert stage is not None
    assert stage.detail == "has not caught up yet"
    nodes.refusal = None
    nodes.incarnations[2] = 999
    look(replacer, 3)
    assert nodes.proposed == []
    stage = replacer.stage(2)
    assert stage is not None
    assert stage.stage == "refused"
    assert f"distkv admin replace 2 --dir {nodes.directory.path}" in stage.detail


def test_wiped_again_before_it_was_admitted(nodes: Nodes) -> None:
    nodes.refusal = Answer(409, {"error": "not_yet", "message": "later"})
    look(nodes.wipe(2, 202))
    nodes.refusal = None
    replacer = nodes.wipe(2, 303)
    look(replacer, 2)
    assert [(body["old"], body["new"]) for body in nodes.proposed] == [(102, 303)]
    assert nodes.directory.ownership().lost == ()


def test_wiped_again_after_it_was_admitted(nodes: Nodes) -> None:
    look(nodes.wipe(2, 202), 2)
    look(nodes.wipe(2, 303), 2)
    assert [(b["old"], b["new"]) for b in nodes.proposed] == [(102, 202), (202, 303)]


def test_two_wiped_nodes_are_both_replaced(nodes: Nodes) -> None:
    nodes.wipe(1, 201)
    look(nodes.wipe(2, 202), 2)
    assert [(body["ordinal"], body["new"]) for body in nodes.proposed] == [(1, 201), (2, 202)]
    assert nodes.directory.ownership().lost == ()


def test_wiped_while_its_identity_was_asked(nodes: Nodes) -> None:
    """The answer is about a disk that is gone: it must not be taken for the new one's."""
    replacer = nodes.wipe(2, 202)
    ask = nodes.ask

    async def slow(ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        answer = await ask(ordinal, method, path, body)
        if path == "/v1/admin/identity" and nodes.incarnations[2] == 202:
            replacer.wipe(2)
            nodes.boot(2, 303)
        return answer

    replacer._ask = slow
    look(replacer, 3)
    assert [(body["old"], body["new"]) for body in nodes.proposed] == [(102, 303)]
    assert nodes.directory.ownership().lost == ()


@pytest.mark.parametrize("steps", range(12))
def test_a_supervisor_killed_at_any_request_goes_on_with_it(nodes: Nodes, steps: int) -> None:
    replacer = nodes.wipe(2, 202)
    nodes.steps_to_live = steps
    try:
        look(replacer, 3)
    except Dies:
        nodes.steps_to_live = 10_000
        look(nodes.replacer(), 3)
    assert [(body["old"], body["new"]) for body in nodes.proposed] == [(102, 202)]
    assert nodes.directory.ownership().lost == ()


def test_a_wipe_cut_short_is_finished_before_the_node_starts(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(ordinal: int) -> None:
        raise Dies

    nodes.running.discard(2)
    with monkeypatch.context() as patch:
        patch.setattr(nodes.directory, "wipe", dies)
        with pytest.raises(Dies):
            nodes.replacer().wipe(2)
    assert nodes.directory.node(2).exists()
    assert nodes.directory.ownership().lost == (Lost(2, False),)
    replacer = nodes.replacer()
    replacer.finish_wipes()
    assert not nodes.directory.node(2).exists()
    nodes.boot(2, 202)
    look(replacer, 2)
    assert nodes.directory.ownership().lost == ()
    replacer.finish_wipes()
    assert nodes.directory.node(2).exists()
