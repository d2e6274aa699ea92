"""Small nodes for `world`: one founding, one membership, one log, as the protocol has it.

Founded, formed, replaced and refilled as the members' rules have it, and as strict: a command
that the real ones would refuse is refused, and one that must never come fails the test.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from unit.operator.refusals import Refused

from distkv_operator.kube.kinds import Manifest
from distkv_operator.kube.transport import Unreachable

if TYPE_CHECKING:
    from unit.operator.world import World


def failures(layout: tuple[int, int]) -> int:
    """f of k and m."""
    return min(layout[1], (sum(layout) - 1) // 2)


class Nodes:
    """The nodes together: one founding, one membership, one log, as the protocol has it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.members: dict[int, int] | None = None
        self.founded_with: list[dict[int, int]] = []
        self.formed = False
        self.owner = ""
        self.cluster = ""
        self.layout = (0, 0)
        self.missing: dict[int, int] = {}
        self.incarnations: dict[str, int] = {}
        self.epoch = 1
        self.restriping = 0
        self.leaving: dict[int, int] = {}
        self.removed: set[int] = set()
        """Incarnations that left for good: they are never admitted again."""
        self.begun: dict[int, tuple[str, int]] = {}
        self.counted: dict[int, tuple[str, int]] = {}
        """Who has looked which shards are missing: a start of a directory; it takes a step."""
        self.preferred: int | None = None
        """Who leads if it serves; else the lowest that does."""
        self.worst = 0
        """Most members that were away, or had shards missing, at the same time once formed."""

    def step(self) -> None:
        """Whoever serves looks what is missing; then repair brings one shard to each."""
        for ordinal in self.members or {}:
            if self._state(ordinal)[0] != "serving":
                continue
            start = self._start(ordinal)
            if self._has_counted(ordinal):
                self.missing[ordinal] = max(0, self.missing.get(ordinal, 0) - 1)
            elif self.begun.get(ordinal) == start:
                self.counted[ordinal] = start
            self.begun[ordinal] = start
        self.missing = {o: left for o, left in self.missing.items() if left}
        self.restriping = max(0, self.restriping - 1)
        if not self.restriping:
            self.removed |= set(self.leaving.values())
            self.leaving = {}
        if self.formed and self.members:
            away = [o for o in self.members if self._state(o)[0] != "serving" or o in self.missing]
            self.worst = max(self.worst, len(away))

    def _claim(self, ordinal: int) -> Manifest | None:
        for (plural, name), item in self.world.objects.items():
            if plural == "persistentvolumeclaims" and name.endswith(f"-{ordinal}"):
                return item
        return None

    def _pod(self, ordinal: int) -> Manifest | None:
        for (plural, name), item in self.world.objects.items():
            if plural == "pods" and name.endswith(f"-{ordinal}"):
                return item
        return None

    def incarnation(self, ordinal: int) -> int:
        """Of the directory on the present claim."""
        claim = self._claim(ordinal)
        assert claim is not None, "a running pod has its claim"
        return self.incarnations.setdefault(claim["metadata"]["uid"], 1000 + len(self.incarnations))

    def _state(self, ordinal: int) -> tuple[str, str]:
        pod = self._pod(ordinal)
        if pod is None or pod["status"].get("phase") != "Running":
            return "down", ""
        if not self.world.hosts.get(pod["spec"]["nodeName"], False):
            return "down", ""
        if pod["spec"]["containers"][0]["image"] == "useless":
            return "starting", "and so it will for ever"
        if self.members is None:
            return "waiting to be founded", ""
        if self.leaving.get(ordinal) == self.incarnation(ordinal):
            return "leaving", ""
        if self.incarnation(ordinal) in self.removed:
            return "retired", ""
        if self.members.get(ordinal) != self.incarnation(ordinal):
            return "waiting to be admitted", "new"
        return ("serving", "") if self.formed else ("forming", "")

    def leader(self) -> int | None:
        """`preferred`, or the lowest that serves."""
        serving = [o for o in self.members or {} if self._state(o)[0] == "serving"]
        if not self.formed or len(serving) * 2 <= len(self.members or {}):
            return None
        return self.preferred if self.preferred in serving else min(serving)

    def _start(self, ordinal: int) -> tuple[str, int]:
        pod = self._pod(ordinal)
        return "" if pod is None else pod["metadata"]["uid"], self.incarnation(ordinal)

    def _has_counted(self, ordinal: int) -> bool:
        return self._pod(ordinal) is not None and self.counted.get(ordinal) == self._start(ordinal)

    def _is_whole(self, ordinal: int) -> bool:
        return self._state(ordinal)[0] == "serving" and ordinal not in self.missing

    def is_sure(self, ordinal: int) -> bool:
        """It serves, and is known to lack nothing."""
        return self._is_whole(ordinal) and self._has_counted(ordinal)

    def check_loss(self, plural: str, name: str) -> None:
        """What the operator takes away must be bearable, whatever the nodes have told it."""
        ordinal = int(name.rpartition("-")[2])
        members = self.members or {}
        if not self.formed or ordinal not in members:
            assert ordinal not in self.leaving or plural == "pods", "its shards are still needed"
            return
        others = [o for o in members if o != ordinal]
        whole = [o for o in others if self.is_sure(o)]
        if plural == "persistentvolumeclaims" and members[ordinal] == self.incarnation(ordinal):
            assert len(whole) >= self.layout[0], f"{name}: the others' shards would not do"
        if plural == "pods" and self._is_whole(ordinal):
            assert len(whole) >= len(members) - max(1, self.failures()), f"{name}: a second one"
            assert len(whole) == len(others) or self._claim_goes(ordinal), f"{name}: a second one"

    def failures(self) -> int:
        """f."""
        return failures(self.layout)

    def _claim_goes(self, ordinal: int) -> bool:
        claim = self._claim(ordinal)
        return claim is not None and "deletionTimestamp" in claim["metadata"]

    def _view(self) -> Manifest:
        """What the leader knows of all."""
        members = self.members or {}
        serving = [o for o in members if self._state(o)[0] == "serving"]
        sure = [o for o in serving if self.is_sure(o)]
        possible = sure + [o for o in serving if not self._has_counted(o)]
        low, high = (
            max(0, min(len(found) - self.layout[0], len(serving) - 1)) for found in (sure, possible)
        )
        rows = [
            {"ordinal": o, "incarnation": i, "up": self._state(o)[0] != "down", "shards_missing": 0}
            for o, i in self.leaving.items()
        ]
        return {"survives": {"durable": low if low == high else None}, "members": rows}

    def status(self, ordinal: int) -> Manifest:
        """/v1/admin/status."""
        state, detail = self._state(ordinal)
        own: Manifest = {
            "cluster": self.cluster or self.config_cluster(),
            "incarnation": self.incarnation(ordinal),
        }
        own |= {"ordinal": ordinal}
        own |= {"state": state, "detail": detail, "formed": False, "serving": False, "role": "none"}
        if self.members is None:
            return own
        leader = self.leader()
        own |= {"formed": self.formed, "serving": state == "serving", "leader": leader}
        own |= {"role": "leader" if leader == ordinal else "follower", "applied": 7}
        missing = self.missing.get(ordinal, 0) if self._has_counted(ordinal) else None
        own |= {"shards": 9, "shards_missing": missing, "cluster_view": self._view()}
        members = [[o, i] for o, i in sorted(self.members.items())]
        own["layout"] = {"epoch": self.epoch, "data_shards": self.layout[0], "members": members}
        own["layout"]["parity_shards"] = self.layout[1]
        return own

    def config_cluster(self) -> str:
        """The id in the nodes' configuration file."""
        for (plural, _), item in self.world.objects.items():
            if plural == "configmaps":
                found = re.search(r'id = "([0-9a-f]{32})"', item["data"]["node.toml"])
                assert found is not None
                return found[1]
        return ""

    def serve(self, host: str, method: str, path: str, raw: bytes | None) -> Any:
        """A request to an admin listener."""
        ordinal = int(host.rpartition(".")[2]) - 1
        if self._state(ordinal)[0] == "down":
            raise Unreachable("connection refused")
        body = json.loads(raw) if raw else {}
        if path == "/v1/admin/status":
            return self.status(ordinal)
        if path == "/v1/admin/found":
            return self._found(ordinal, body)
        if self.members is None:
            raise Refused(503, "not_formed")
        if method == "GET":
            assert path == "/v1/admin/layout", path
            return self._progress(ordinal)
        if body["owner"] != self.owner:
            raise Refused(403, "foreign_owner")
        if path == "/v1/admin/formed":
            self.formed = True
            return {"formed": True}
        if path == "/v1/admin/layout":
            return self._change_layout(ordinal, body)
        assert path == "/v1/admin/replace", path
        return self._replace(ordinal, body)

    def _found(self, ordinal: int, body: Manifest) -> Manifest:
        assert ordinal == 0, "found goes to ordinal 0"
        members = dict(body["members"])
        self.founded_with.append(members)
        if self.members is not None and self.members != members:
            raise Refused(400, "founded with another list")
        assert members[0] == self.incarnation(0)
        self.members, self.owner = members, body["owner"]
        self.cluster = body["cluster_id"]
        self.layout = (body["layout"]["data_shards"], body["layout"]["parity_shards"])
        return {"accepted": True}

    def _progress(self, asked: int) -> Manifest:
        if asked != self.leader() or self.members is None:
            return {"leads": False}
        running = [o for o in range(12) if self._pod(o) and self._state(o)[0] != "down"]
        waiting = [o for o in running if o not in self.members and o not in self.leaving]
        return {
            "leads": True,
            "epoch": self.epoch,
            "data_shards": self.layout[0],
            "parity_shards": self.layout[1],
            "members": [[o, i] for o, i in sorted(self.members.items())],
            "changing": self.restriping > 0,
            "records_left": self.restriping,
            "bytes_left": self.restriping,
            "failures": self.failures(),
            "leaving": [[o, i] for o, i in self.leaving.items()],
            "waiting": [
                {
                    "ordinal": o,
                    "incarnation": self.incarnation(o),
                    "caught_up": True,
                    "removed": self.incarnation(o) in self.removed,
                }
                for o in waiting
                if self._state(o)[0] != "starting"
            ],
        }

    def _change_layout(self, asked: int, body: Manifest) -> Manifest:
        assert self.members is not None
        if asked != self.leader():
            raise Refused(409, "not_leader")
        if body["epoch"] != self.epoch:
            raise Refused(409, "another layout is in force")
        if self.missing:
            raise Refused(409, "not_yet")
        members = dict(body["members"])
        everybody = self.members | self.leaving
        for ordinal, incarnation in members.items():
            seated = everybody.get(ordinal)
            assert incarnation == (seated or self.incarnation(ordinal)), "a stranger"
            assert incarnation not in self.removed, "it is never admitted again"
        wanted = (body["data_shards"], body["parity_shards"])
        assert sorted(members) == list(range(sum(wanted)))
        self._check_quorum(self.members, self.layout)
        self._check_quorum(members, wanted)
        self.leaving = {o: i for o, i in everybody.items() if o not in members}
        self.members, self.layout = members, wanted
        self.epoch, self.restriping = self.epoch + 1, 3
        return {"epoch": self.epoch - 1, "done": False}

    def _check_quorum(self, members: dict[int, int], layout: tuple[int, int]) -> None:
        """Enough of them are up to go on with that layout."""
        up = [
            ordinal
            for ordinal, incarnation in members.items()
            if self._state(ordinal)[0] not in ("down", "starting")
            and self.incarnation(ordinal) == incarnation
        ]
        if len(up) < len(members) - failures(layout):
            raise Refused(409, "not_yet")

    def _replace(self, asked: int, body: Manifest) -> Manifest:
        assert self.members is not None
        ordinal = body["ordinal"]
        if self.members[ordinal] == body["new"]:
            return {"replaced": True}
        if asked != self.leader():
            raise Refused(409, "not_the_leader")
        if self.members[ordinal] != body["old"]:
            raise Refused(400, "old is another")
        if self.incarnation(ordinal) != body["new"]:
            raise Refused(409, "not connected")
        assert body["new"] not in self.removed, "it is never admitted again"
        self.removed.add(body["old"])
        self.members[ordinal] = body["new"]
        self.missing[ordinal] = 3
        return {"replaced": False}
