"""The owner of a simulated cluster who wants other layouts, again and again.

It is the one of laptop mode (`local.relayout`), with its files in memory. Its requests go to the
nodes' admin commands as JSON and may be lost, late or unanswered; it may die between any two of
them, and wants something else whenever it likes.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from distkv.errors import DistKVError
from distkv.local.ask import Answer
from distkv.local.directory import Directory, Identity, Layout, Ownership
from distkv.local.errors import LocalError
from distkv.local.relayout import Relayout
from distkv.machine.snapshot import TABLES
from distkv.runtime.admin import Admin
from distkv.simulation.rotting import rotten

if TYPE_CHECKING:
    from distkv.member.member import Member
    from distkv.runtime.driver import Driver
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

EVERY = 0.1
NEWS = 1.0
"""Seconds after which a leader has noticed that a node is gone."""
NODES_MAX = 7
"""Of a layout that is asked for, unless the world began with more."""
LOST, UNANSWERED, LATE = 0.04, 0.1, 0.3
"""Bounds of the fate of one request while there are faults; questions are never late."""
TURN_BACK = 0.5
"""Chance that the owner gives up what it asks for, if the answer is late."""
DEATH = 0.01
"""Chance that the owner's process dies, at each thing it does."""
KILL = 0.3
"""Chance that a node dies soon after it took a request, where nodes die at all."""


class Killed(BaseException):
    """The owner's process ended here."""


class OwnerFiles(Directory):
    """What the owner wrote, durable at once."""

    def __init__(self, data_shards: int, parity_shards: int, cluster: bytes) -> None:
        super().__init__(Path("/nowhere"))
        self._files: dict[str, str] = {}
        self.write_ownership(Ownership("owner", formed=True))
        identity = Identity("simulated", cluster.hex(), data_shards, parity_shards, 0, None, {})
        self.write_identity(identity)

    def _read(self, name: str) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self._files[name]))

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self._files[name] = json.dumps(content)


class _Door:
    """All that the admin commands use of a driver."""

    def __init__(self, member: Member) -> None:
        self.member = member


class LayoutOwner:
    """See the module; implements relayout.Hands."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.layout_rng
        self.files = OwnerFiles(world.data_shards, world.parity_shards, world.cluster)
        self._relayout = self._started()
        self._past = [self.last]
        self.turn_back = TURN_BACK
        self.orders = 0
        self.done = 0
        """Changes that were completed."""

    def _started(self) -> Relayout:
        return Relayout(self.files, self, self._said)

    def _said(self, text: str) -> None:
        self.done += "is complete" in text
        self._world.note(f"owner: {text}")

    @property
    def last(self) -> Layout:
        """What was wanted last."""
        return self.files.ownership().wanted or self.files.identity().layout

    def start(self) -> None:
        """Begin; runs for ever."""
        if self._world.drawn.relayout:
            self._world.after(EVERY, self._look)

    def why(self) -> str:
        """What is missing until the last order is carried out; empty: nothing."""
        progress = self._relayout.progress()
        if progress["wanted"] is None:
            newest = self._world.checker.layouts.write_epoch
            found = Layout(newest.data_shards, newest.parity_shards)
            return "" if found == self.last else f"the layout is {found} instead of {self.last}"
        return f"the layout {self.last} is wanted: {progress['doing']}"

    def _look(self) -> None:
        world = self._world
        if not world.healing and self._rng.random() < world.drawn.relayout * EVERY:
            wanted = self._draw()
            if not self._spends_what_is_lost(wanted):
                self.order(wanted)
        if self.files.ownership().wanted is not None:
            try:
                asyncio.run(self._relayout.step())
            except Killed:
                world.note("the owner dies and is started again")
                self._relayout = self._started()
        world.after(EVERY, self._look)

    @property
    def bears_nothing(self) -> bool:
        """The layout that is wanted, or the last one, has f = 0."""
        return not _failures(self.last)

    def _spends_what_is_lost(self, wanted: Layout) -> bool:
        """Whether more disks were lost in the last moments than this layout bears: the leader
        may not have noticed yet, and nobody can promise anything for that (soundness). Nor for
        a row that rots unnoticed where f = 0 leaves nobody to mend it (see rotting; 6120286)."""
        world, bears = self._world, _failures(wanted)
        if not bears and any(rotten(host, TABLES) for host in world.hosts):
            return True
        return world.now - world.disk_lost_at < NEWS and len(world.victims) > bears

    # -- what it wants

    def order(self, wanted: Layout) -> None:
        """Want this layout from now on."""
        try:
            said = self._relayout.want(wanted)
        except LocalError as error:
            self._world.violation(f"the owner may not want {wanted}: {error}")
        self._past.append(wanted)
        self.orders += 1
        self._world.note(f"owner: {said}")

    def _draw(self) -> Layout:
        """Back to an earlier one, one node more or fewer, or anything."""
        rng, present = self._rng, self.last
        most = max(NODES_MAX, self._past[0].nodes)
        kind = rng.random()
        if kind < 0.3:
            return rng.choice(self._past)
        if kind < 0.6:
            k = max(1, present.data_shards + rng.choice((-1, 0, 1)))
            m = max(0, present.parity_shards + rng.choice((-1, 0, 1)))
        else:
            nodes = rng.randint(1, most)
            k = rng.randint(1, nodes)
            m = nodes - k
        return Layout(k, min(m, max(0, most - k)))

    # -- relayout.Hands

    @property
    def _calm(self) -> bool:
        return self._world.healing

    def _perhaps_die(self) -> None:
        if not self._calm and self._rng.random() < DEATH:
            raise Killed

    def is_running(self, ordinal: int) -> bool:
        """See Hands."""
        return self._world.hosts[ordinal].alive

    def resize(self, nodes: int) -> None:
        """See Hands."""
        while len(self._world.hosts) < nodes:
            self._perhaps_die()
            self._world.add_host()

    def check_ports(self, nodes: int) -> None:
        """There are always ports."""

    async def remove(self, ordinal: int) -> None:
        """See Hands."""
        self._perhaps_die()
        self._world.remove_host(ordinal)
        self._perhaps_die()

    async def ask_admin(self, ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        """See Hands."""
        world, host, request = self._world, self._world.hosts[ordinal], json.dumps(body)
        if path == "/v1/admin/identity":
            alive = host.alive and host.member is not None
            return Answer(200, {"incarnation": host.incarnation}) if alive else Answer(0, "refused")
        self._perhaps_die()
        assert path == "/v1/admin/layout"
        fate = 1.0 if self._calm else self._rng.random()
        if fate < LOST:
            return Answer(0, "timed out")
        if UNANSWERED <= fate < LATE and method == "POST":
            delay = self._rng.choice((0.05, 0.5, 1.0, 2.0))
            world.after(delay, lambda: self._late(host, request))
            self._perhaps_turn_back()
            return Answer(0, "timed out")
        answer = self._arrive(host, method, request)
        self._perhaps_die()
        return Answer(0, "the answer is lost") if fate < UNANSWERED else answer

    def _perhaps_turn_back(self) -> None:
        """Nobody answers: the owner changes its mind, while its request may yet be heard."""
        if self._rng.random() < self.turn_back:
            back = self.files.identity().layout
            self._world.after(0.0, lambda: self.order(back))

    def _late(self, host: Host, request: str) -> None:
        if self._calm:
            return
        answer = self._arrive(host, "POST", request)
        self._world.note(f"a late request for a layout reaches node {host.ordinal}: {answer}")

    def _arrive(self, host: Host, method: str, request: str) -> Answer:
        if not host.alive or host.member is None:
            return Answer(0, "connection refused")
        admin = Admin(cast("Driver", _Door(host.member)), self._world.inline_max)
        body = json.loads(request)
        try:
            said = admin.layout() if method == "GET" else admin.change_layout(body)
        except DistKVError as error:
            if method == "POST":
                self._world.note(f"node {host.ordinal} refuses the layout: {error}")
            return Answer(error.http, {"error": error.code, "message": str(error)})
        if method == "POST":
            shown = f"{body['data_shards']} + {body['parity_shards']} {body['members']}"
            self._world.note(f"node {host.ordinal} takes the layout {shown}: {said}")
            self._perhaps_kill(host)
        return Answer(200, json.loads(json.dumps(said)))

    def _perhaps_kill(self, host: Host) -> None:
        world, faults = self._world, self._world.faults
        if not (faults.crash or faults.kill_leader) or self._rng.random() >= KILL:
            return
        generation = host.generation

        def kill() -> None:
            if host.alive and host.generation == generation and not world.healing:
                world.halted(
                    host, "it is killed as the layout changes", self._rng.choice((0.1, 1.0))
                )

        world.after(self._rng.uniform(0.0, 0.2), kill)


def _failures(layout: Layout) -> int:
    """f."""
    return min(layout.parity_shards, (layout.nodes - 1) // 2)
