"""The owner of a local cluster replaces nodes whose disk it wiped (protocol: members).

It may do so because it knows: `wipe` is durable in owner.json before the first file goes. An
empty directory alone proves nothing, a failed mount looks the same; such a node waits until a
person admits it (`distkv admin replace`).

Durable before anything relies on it, so that a supervisor killed at any line goes on with it:
that the disk is to be wiped; that it is; which incarnation then started on the new directory.
That one alone is named to the leader, which judges whether the moment is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from distkv.local.ask import Answer
from distkv.local.directory import Directory, Lost, Ownership
from distkv.local.owner import AskAdmin

POLL_SECONDS = 0.2


class Replacement(NamedTuple):
    """How far a wiped node is. `stage`: "wiped", "starting", "joining" or "refused"; `detail`:
    what it waits for, for people."""

    stage: str
    detail: str


class Replacer:
    """`is_running(ordinal)`: whether its process runs; `say` is told of what was done."""

    def __init__(
        self,
        directory: Directory,
        ask: AskAdmin,
        ask_status: Callable[[int], Awaitable[Answer]],
        is_running: Callable[[int], bool],
        say: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._ask = ask
        self._ask_status = ask_status
        self._is_running = is_running
        self._say = say
        self._stages: dict[int, Replacement] = {}
        self._wipes = 0
        """Orders to wipe: what was asked before the last one may be about a disk that is gone."""

    @property
    def _ownership(self) -> Ownership:
        return self._directory.ownership()

    # -- losing disks

    def wipe(self, ordinal: int) -> None:
        """Lose the disk of a node that is down, whether it was replaced since the last time
        or not."""
        self._wipes += 1
        self._store(self._ownership.with_lost(Lost(ordinal)))
        self._finish(ordinal)

    def finish_wipes(self) -> None:
        """What was ordered before a crash is done, before any node starts."""
        for lost in self._ownership.lost:
            if not lost.wiped:
                self._finish(lost.ordinal)

    def _finish(self, ordinal: int) -> None:
        self._directory.wipe(ordinal)
        self._store(self._ownership.with_lost(Lost(ordinal, wiped=True)))
        self._stages.pop(ordinal, None)

    def _store(self, ownership: Ownership) -> None:
        self._directory.write_ownership(ownership)

    # -- replacing them

    def stage(self, ordinal: int) -> Replacement | None:
        """How far a wiped node is; None: it was not wiped, or it is a member again."""
        if self._ownership.lost_at(ordinal) is None:
            return None
        waits = Replacement("wiped", "its disk was wiped; it waits to be started")
        return self._stages.get(ordinal, waits)

    async def run(self) -> None:
        """Look after wiped nodes until cancelled."""
        while True:
            if self._ownership.lost:
                await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Bring each wiped node that runs one step further."""
        leader, members = await self._leader()
        for lost in self._ownership.lost:
            if not self._is_running(lost.ordinal):
                self._stages.pop(lost.ordinal, None)
                continue
            wipes = self._wipes
            stage = await self._admit(lost, leader, members)
            if wipes == self._wipes and self._ownership.lost_at(lost.ordinal) is not None:
                self._stages[lost.ordinal] = stage

    async def _admit(self, lost: Lost, leader: int | None, members: list[Any]) -> Replacement:
        ordinal, wipes = lost.ordinal, self._wipes
        answer = await self._ask(ordinal, "GET", "/v1/admin/identity")
        if wipes != self._wipes or not answer.ok:
            return Replacement("starting", f"it does not answer yet ({answer.reason})")
        new = int(answer.body["incarnation"])
        if lost.admit is None:
            self._store(self._ownership.with_lost(lost._replace(admit=new)))
        elif lost.admit != new:
            return Replacement(
                "refused",
                f"its directory was made anew (incarnation {new}) by somebody else than "
                "`distkv local wipe`; if its disk is really lost: "
                + admit_command(self._directory, ordinal),
            )
        if leader is None or ordinal >= len(members):
            return Replacement("joining", "no node says that it leads")
        old = int(members[ordinal][1])
        if old == new:
            self._store(self._ownership.without_lost(ordinal))
            self._say(f"node-{ordinal} is a member again (incarnation {new}); it gets its shards")
            return Replacement("joining", "it is a member again")
        return await self._propose(leader, ordinal, old, new)

    async def _propose(self, leader: int, ordinal: int, old: int, new: int) -> Replacement:
        request = {"owner": self._ownership.owner, "ordinal": ordinal, "old": old, "new": new}
        answer = await self._ask(leader, "POST", "/v1/admin/replace", request)
        if answer.ok:
            return Replacement("joining", "its admission is in the log, not applied yet")
        return Replacement("joining", answer.reason)

    async def _leader(self) -> tuple[int | None, list[Any]]:
        """Who leads by its own word under the highest ballot, and the members it knows."""
        running = [ordinal for ordinal in range(self._directory.nodes) if self._is_running(ordinal)]
        answers = await asyncio.gather(*(self._ask_status(ordinal) for ordinal in running))
        leaders = [
            (answer.body["ballot"], ordinal, answer.body["layout"]["members"])
            for ordinal, answer in zip(running, answers, strict=True)
            if answer.ok and answer.body.get("role") == "leader"
        ]
        if not leaders:
            return None, []
        _, leader, members = max(leaders)
        return leader, members


def admit_command(directory: Directory, ordinal: int) -> str:
    """What a person enters to admit a new directory."""
    return f"distkv admin replace {ordinal} --dir {directory.path}"
