"""Histories from seeds: hosts come and go, people delete and edit, calls fail, operators die.

Never more is hurt at a time than the layout bears, but for what the operator does itself: the
world refuses the rest (see `small_nodes.check_loss`). In the end everything comes back, and the
cluster has to be whole again, founded once.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from unit.operator.stories import (
    NAME,
    Clock,
    Crash,
    conditions,
    founded,
    is_ready,
    operator,
    run,
)
from unit.operator.world import BAD_IMAGE, NAMESPACE, USELESS_IMAGE, World

from distkv_operator.kube import gate
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.kinds import CHILDREN, CLAIM, POD, Manifest
from distkv_operator.kube.transport import Request, Unreachable
from distkv_operator.names import INCARNATION_ANNOTATION

pytestmark = pytest.mark.usefixtures("no_pauses")

ROUNDS = 60
LAYOUTS = ((3, 2), (4, 3), (2, 1))
LISTED = (*CHILDREN, POD, CLAIM)
PARTS = (
    ("services", NAME),
    ("services", f"{NAME}-peers"),
    ("configmaps", f"{NAME}-config"),
    ("deployments", f"{NAME}-gateway"),
    ("poddisruptionbudgets", NAME),
    ("networkpolicies", NAME),
)


class History:
    """One seed's."""

    def __init__(self, world: World, clock: Clock, seed: int) -> None:
        self.world, self.clock = world, clock
        self.chance = random.Random(seed)
        self.told: list[str] = []
        self.refused = ""
        self.excused = False
        """The record was gone while some claim did not say whose it is, or went: what comes after
        it cannot be told from a failed mount, and waits for a person."""
        world.before, world.after = self.before, self.after

    def before(self, number: int, request: Request) -> None:
        if self.refused:
            path = urlsplit(request.url).path
            if request.method == "GET" and path.endswith(f"/{self.refused}"):
                raise Unreachable("refused")
            assert request.method != "DELETE", f"{path} goes while {self.refused} are unknown"
            if request.method == "PATCH" and path.endswith(f"/statefulsets/{NAME}"):
                self.check_replicas(json.loads(request.body or b"{}"))
        if self.chance.random() < 0.01:
            raise Unreachable("cut off")

    def after(self, number: int, request: Request) -> None:
        if self.chance.random() < 0.004:
            raise Crash
        if self.chance.random() < 0.01:
            raise Unreachable("the answer was lost")

    def check_replicas(self, wanted: Manifest) -> None:
        live = self.world.objects.get(("statefulsets", NAME))
        before = 0 if live is None else live["spec"]["replicas"]
        assert wanted["spec"]["replicas"] >= before, "pods go while not all is known"

    # -- what happens

    @property
    def spec(self) -> dict[str, object]:
        found: dict[str, object] = self.world.objects["distkvclusters", NAME]["spec"]
        return found

    def bears(self, ordinal: int) -> bool:
        """Whether this member may be hurt now, too: by the layout, and by the one wanted."""
        nodes = self.world.nodes
        members = nodes.members or {}
        hurt = [o for o in members if o != ordinal and not nodes.is_sure(o)]
        wanted = (int(str(self.spec["dataShards"])), int(str(self.spec["parityShards"])))
        f = min(min(m, (k + m - 1) // 2) for k, m in (nodes.layout, wanted))
        return ordinal in members and not nodes.restriping and len(hurt) < f

    def some_pod(self) -> str | None:
        pods = sorted(name for kind, name in self.world.objects if kind == "pods")
        return self.chance.choice(pods) if pods else None

    def lose_host(self) -> None:
        name = self.some_pod()
        host = name and self.world.objects["pods", name]["spec"].get("nodeName")
        if name and host and self.bears(int(name.rpartition("-")[2])):
            self.world.hosts[host] = False
            self.told.append(f"{host} of {name} lost")

    def host_back(self) -> None:
        lost = sorted(host for host, up in self.world.hosts.items() if not up)
        if lost:
            self.world.hosts[self.chance.choice(lost)] = True

    def delete_pod(self) -> None:
        name = self.some_pod()
        if name and self.bears(int(name.rpartition("-")[2])):
            self.world.remove("pods", name)
            self.told.append(f"{name} deleted")

    def delete_claim(self) -> None:
        name = self.some_pod()
        claim = self.world.objects.get(("persistentvolumeclaims", f"data-{name}"))
        if name and claim and self.bears(int(name.rpartition("-")[2])):
            claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.told.append(f"data-{name} deleted")

    def give_up(self) -> None:
        ordinal, old = self.chance.choice(sorted((self.world.nodes.members or {0: 0}).items()))
        text = {"distkv.io/replace": f"{ordinal}={old}"}
        self.world.objects["distkvclusters", NAME]["metadata"]["annotations"] = text
        self.told.append(f"{text}")

    def change_image(self) -> None:
        images = ("distkv:1", "distkv:2", BAD_IMAGE, USELESS_IMAGE)
        self.spec["image"] = self.chance.choice(images)
        self.told.append(f"image {self.spec['image']}")

    def change_layout(self) -> None:
        if not any(up for up in self.world.hosts.values()):
            return
        k, m = self.chance.choice(LAYOUTS)
        self.spec.update(dataShards=k, parityShards=m)
        self.told.append(f"layout {k}+{m}")

    def refuse_listing(self) -> None:
        """For a while one kind cannot be listed, or all can again."""
        self.refused = self.chance.choice((*(kind.plural for kind in LISTED), "", "", ""))
        self.told.append(f"listing {self.refused or 'nothing'} is refused")

    def grow(self) -> None:
        self.spec["storage"] = {"size": "20Gi"}
        self.told.append("20Gi")

    def pause(self) -> None:
        self.spec["paused"] = not self.spec.get("paused")
        self.told.append(f"paused {self.spec['paused']}")

    def delete_child(self) -> None:
        self.world.remove(*self.chance.choice(PARTS))

    def lose_status(self) -> None:
        self.world.objects["distkvclusters", NAME].pop("status", None)
        self.told.append("status lost")

    def lose_record(self) -> None:
        # A claim made since the last record cannot be told from the one of before: that waits
        # for a person.
        nodes = self.world.nodes
        if all(nodes.is_sure(ordinal) for ordinal in nodes.members or {}):
            self.world.remove("secrets", f"{NAME}-identity")
            self.told.append("record lost")

    def happen(self) -> None:
        events: list[Callable[[], None]] = [
            *(self.lose_host, self.host_back, self.delete_pod, self.delete_claim, self.give_up),
            *(self.change_image, self.change_layout, self.grow, self.pause, self.delete_child),
            *(self.lose_status, self.lose_record, self.host_back, self.delete_pod),
            *(self.refuse_listing, self.change_layout),
        ]
        self.chance.choice(events)()
        is_recorded = ("secrets", f"{NAME}-identity") in self.world.objects
        self.excused |= not (is_recorded or self.claims_say_all())

    def claims_say_all(self) -> bool:
        """Whether the record could be made again from the claims alone."""
        for ordinal, incarnation in (self.world.nodes.members or {}).items():
            claim = self.world.objects.get(("persistentvolumeclaims", f"data-{NAME}-{ordinal}"))
            meta = {} if claim is None else claim["metadata"]
            said = meta.get("annotations", {}).get(INCARNATION_ANNOTATION)
            if said != str(incarnation) or "deletionTimestamp" in meta:
                return False
        return True

    # -- the course of it

    async def go(self) -> None:
        acting = operator(self.world, self.clock)
        for _ in range(ROUNDS):
            if self.chance.random() < 0.2:
                self.happen()
            self.world.settle()
            self.clock.now += datetime.timedelta(seconds=10)
            try:
                await acting.reconcile(NAMESPACE, NAME)
            except Crash:
                acting = operator(self.world, self.clock)
            except ApiError:
                continue
            assert len(self.world.nodes.founded_with) == 1, "founded again"

    async def come_back(self) -> None:
        """Nothing ails any more; whoever is asked for gets it."""
        self.world.before = self.world.after = lambda *_: None
        self.refused = ""
        self.world.hosts = dict.fromkeys(self.world.hosts, True)
        self.spec.update(paused=False, image="distkv:3")
        try:
            await run(self.world, self.clock, self.is_whole)
        except pytest.fail.Exception:
            if not (self.excused and self.obey()):
                raise
            await run(self.world, self.clock, self.is_whole)

    def obey(self) -> bool:
        """A person does what the condition says."""
        said = re.search(r"(distkv.io/replace)=(\d+=\d+)", conditions(self.world)["Progressing"])
        if said is not None:
            meta = self.world.objects["distkvclusters", NAME]["metadata"]
            meta["annotations"] = {said[1]: said[2]}
        return said is not None

    def is_whole(self, world: World) -> bool:
        wanted = int(str(self.spec["dataShards"])) + int(str(self.spec["parityShards"]))
        pods = [name for kind, name in world.objects if kind == "pods"]
        claims = [name for kind, name in world.objects if kind == "persistentvolumeclaims"]
        nodes = world.nodes
        return (
            is_ready(world)
            and not nodes.missing
            and nodes.members == {o: nodes.incarnation(o) for o in range(wanted)}
            and len(pods) == len(claims) == wanted
        )


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused for long is asked for again at once: the pauses would be real ones."""
    monkeypatch.setattr(gate, "PAUSE_SECONDS", 0.0)


def play(seed: int) -> None:
    async def go() -> None:
        history = History(*await founded(), seed)
        try:
            await history.go()
            await history.come_back()
        except (AssertionError, pytest.fail.Exception) as failure:
            told = "; ".join(history.told)
            raise AssertionError(f"seed {seed}: {told}: {failure}") from failure
        assert conditions(history.world)["ReconcileSucceeded"].startswith("True")

    asyncio.run(go())


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_any_history_ends_whole(first: int) -> None:
    for seed in range(first, first + 5):
        play(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_many_histories_end_whole(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed)
