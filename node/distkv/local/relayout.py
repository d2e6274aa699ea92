"""A change of layout in laptop mode: the owner's part, step by step (protocol section 6).

What is wanted is durable in owner.json before anything is done, and every step follows from
what is wanted and what the cluster says of itself; so a supervisor that was killed goes on at
the next `up`, and a change is reversed half-way by wanting the old numbers:

1. processes for all ordinals of both layouts run, the new ones with empty directories;
2. once the new ones have caught up, the layout is pushed, until the leader has applied it;
3. the nodes stripe the records anew and retire the old layout by themselves;
4. then the surplus processes are stopped and their directories removed, not earlier.

A push that was not seen to be applied may still come true later, under another leader. Before
anything is done that it would contradict, an epoch of its own ends it: the next epoch has one
number more, so the older push is refused at apply (`pushed` remembers under which epoch), and
by the leader if it is as late as that: a request names the epoch that it follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from distkv.core.configuration import NODES_MAX
from distkv.local.ask import Answer
from distkv.local.directory import Directory, Layout, Ownership, Push
from distkv.local.errors import LocalError

POLL_SECONDS = 0.2


class Hands(Protocol):
    """What the supervisor does for it."""

    def is_running(self, ordinal: int) -> bool:
        """Whether the process of a node runs."""

    def resize(self, nodes: int) -> None:
        """Have configurations for so many nodes, and tell all processes; a node that has no
        process yet gets one, started."""

    def check_ports(self, nodes: int) -> None:
        """Raise LocalError if a port that further nodes need is taken."""

    async def remove(self, ordinal: int) -> None:
        """Stop the last node and remove its directory."""

    async def ask_admin(self, ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        """Ask the admin listener of a node."""


class Seen(NamedTuple):
    """What the leader says."""

    leader: int
    body: dict[str, Any]

    @property
    def layout(self) -> Layout:
        """The newest."""
        return Layout(self.body["data_shards"], self.body["parity_shards"])

    @property
    def seats(self) -> list[int]:
        """Incarnations of all members of all layouts, by ordinal."""
        pairs = [*self.body["members"], *self.body["leaving"]]
        return [incarnation for _, incarnation in sorted(pairs)]


class Relayout:
    """`say` is told of what was done."""

    def __init__(self, directory: Directory, hands: Hands, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._hands = hands
        self._say = say
        self._doing = "it begins"
        self._seen: Seen | None = None

    @property
    def _ownership(self) -> Ownership:
        return self._directory.ownership()

    # -- the command

    def want(self, wanted: Layout) -> str:
        """Order a layout; what to tell. Raises LocalError; nothing was changed then."""
        ownership, present = self._ownership, self._directory.identity().layout
        if wanted.data_shards < 1 or wanted.parity_shards < 0:
            raise LocalError("a layout has at least 1 data shard and 0 parity shards")
        if wanted.nodes > NODES_MAX:
            raise LocalError(
                f"{wanted} are {wanted.nodes} nodes; at most {NODES_MAX} are supported"
            )
        if not ownership.formed:
            raise LocalError("the cluster is not formed yet: try again in a moment")
        if wanted == (ownership.wanted or present):
            if ownership.wanted is None:
                return f"the layout is {wanted} already: nothing to do"
            return f"the change to {wanted} is under way already"
        self._hands.check_ports(wanted.nodes)
        nodes = max(self._directory.nodes, wanted.nodes)
        self._store(ownership._replace(wanted=wanted, nodes=nodes))
        self._doing = "it begins"
        return f"the layout changes from {present} to {wanted}"

    def progress(self) -> dict[str, Any]:
        """For `distkv admin layout`: `wanted` is null once all is done."""
        wanted = self._ownership.wanted
        seen = None if self._seen is None else self._seen.body
        return {
            "wanted": None if wanted is None else list(wanted),
            "doing": self._doing if wanted is not None else "",
            "layout": list(self._directory.identity().layout),
            "cluster": seen,
        }

    def _store(self, ownership: Ownership) -> None:
        self._directory.write_ownership(ownership)

    # -- carrying it out

    async def run(self) -> None:
        """Go on with what is wanted until cancelled."""
        while True:
            if self._ownership.wanted is not None:
                await self.step()
            await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> None:
        """Look at the cluster, and do the next thing that may be done."""
        wanted = self._ownership.wanted
        assert wanted is not None
        nodes = max(self._directory.nodes, wanted.nodes)
        if nodes != self._directory.nodes:
            self._store(self._ownership._replace(nodes=nodes))
        self._hands.resize(nodes)
        seen = self._seen = await self._look(nodes)
        if seen is None:
            self._doing = "no node says that it leads"
            return
        if self._ownership.wanted != wanted:
            return  # another layout was ordered while the cluster was asked
        pushed = self._ownership.pushed
        if pushed is not None and seen.body["epoch"] > pushed.epoch:
            self._store(self._ownership._replace(pushed=None))
            pushed = None
        if seen.layout != wanted:
            await self._push(seen, wanted, again=False)
        elif pushed is not None and pushed.layout != wanted:
            await self._push(seen, wanted, again=True)
        else:
            await self._finish(seen, wanted)

    async def _look(self, nodes: int) -> Seen | None:
        running = [ordinal for ordinal in range(nodes) if self._hands.is_running(ordinal)]
        answers = await asyncio.gather(
            *(self._hands.ask_admin(o, "GET", "/v1/admin/layout") for o in running)
        )
        for ordinal, answer in zip(running, answers, strict=True):
            if answer.ok and answer.body["leads"]:
                return Seen(ordinal, answer.body)
        return None

    async def _push(self, seen: Seen, wanted: Layout, again: bool) -> None:
        members = seen.seats[: wanted.nodes]
        for ordinal in range(len(members), wanted.nodes):
            joiner = await self._joiner(seen, ordinal)
            if joiner is None:
                return
            members.append(joiner)
        # Durable first: from here on the cluster may take it up at any time.
        if not again:  # else what it is to end stays noted until the epoch is another one
            push = Push(seen.body["epoch"], wanted)
            self._store(self._ownership._replace(pushed=push))
        request = {
            "owner": self._ownership.owner,
            "data_shards": wanted.data_shards,
            "parity_shards": wanted.parity_shards,
            "members": list(enumerate(members)),
            "again": again,
            "epoch": seen.body["epoch"],
        }
        answer = await self._hands.ask_admin(seen.leader, "POST", "/v1/admin/layout", request)
        if answer.status in (400, 403):
            self._doing = f"the cluster refuses the layout: {answer.reason}"
        else:
            self._doing = "the new layout is in the log" if answer.ok else answer.reason

    async def _joiner(self, seen: Seen, ordinal: int) -> int | None:
        for node in seen.body["waiting"]:
            if node["ordinal"] != ordinal:
                continue
            if node["removed"]:
                # It left with an older layout before this one was wanted, and never comes back.
                # No layout has had this seat since, nor one above it.
                await self._remove_down_to(ordinal)
                return None
            if node["caught_up"]:
                return await self._if_there(ordinal, int(node["incarnation"]))
            self._doing = f"node {ordinal} catches up with the log (slot {node['applied']})"
            return None
        self._doing = f"node {ordinal} starts"
        return None

    async def _if_there(self, ordinal: int, incarnation: int) -> int | None:
        """The incarnation, if this is the directory that the node has now. A leader may have yet
        to notice that another was removed, and must not give that one the seat."""
        answer = await self._hands.ask_admin(ordinal, "GET", "/v1/admin/identity")
        if answer.ok and answer.body["incarnation"] == incarnation:
            return incarnation
        self._doing = f"node {ordinal} starts"
        return None

    async def _finish(self, seen: Seen, wanted: Layout) -> None:
        """The epoch is applied: wait for the end of the old ones, then let the surplus go."""
        identity = self._directory.identity()
        if identity.layout != wanted:
            k, m = wanted
            self._directory.write_identity(identity._replace(data_shards=k, parity_shards=m))
            self._say(f"the layout is {wanted} now; older values are striped anew")
        if seen.body["changing"]:
            left = seen.body["records_left"]
            self._doing = f"{left} values of the old layout are left" if left else "it ends"
            return
        await self._remove_down_to(wanted.nodes)
        self._hands.resize(wanted.nodes)
        self._store(self._ownership._replace(wanted=None, pushed=None, nodes=None))
        self._say(f"the change to {wanted} is complete")

    async def _remove_down_to(self, nodes: int) -> None:
        while self._directory.nodes > nodes:
            surplus = self._directory.nodes - 1
            self._doing = f"node {surplus} is removed"
            await self._hands.remove(surplus)
            self._store(self._ownership._replace(nodes=surplus))
