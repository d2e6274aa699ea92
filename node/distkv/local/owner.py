"""The owner of a local cluster: founds it exactly once (protocol: formation).

Each promise is durable in owner.json before anything relies on it:
the list of founders, before `found` is sent; `formed`, before that is submitted to the log.
So a supervisor that dies at any line goes on with the same list, and a cluster that was
formed is never founded again, whatever became of its nodes' disks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from distkv.local.ask import Answer
from distkv.local.directory import Directory, Identity, Ownership
from distkv.local.errors import LocalError

POLL_SECONDS = 0.03
FINAL_STATUS = range(400, 500)
"""Answers that the same request would get again."""


class AskAdmin(Protocol):
    """Ask the admin listener of one node."""

    def __call__(
        self, ordinal: int, method: str, path: str, body: Any = None
    ) -> Awaitable[Answer]: ...


class Owner:
    """`form` returns once the cluster is formed; `report` is told what it waits for."""

    def __init__(
        self,
        directory: Directory,
        ask: AskAdmin,
        ask_status: Callable[[int], Awaitable[Answer]],
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._identity: Identity = directory.identity()
        self._ask = ask
        self._ask_status = ask_status
        self._report = report

    async def form(self) -> None:
        """Found the cluster if it was not, and see that `formed` is in its log.

        Raises LocalError if it can never succeed.
        """
        ownership = self._directory.ownership()
        if not ownership.formed:
            ownership = await self._found(ownership)
            ownership = ownership._replace(formed=True)
            self._directory.write_ownership(ownership)
        await self._submit_formed(ownership)

    async def _found(self, ownership: Ownership) -> Ownership:
        present = [(i, await self._incarnation(i)) for i in range(self._identity.nodes)]
        if ownership.founders is None:
            ownership = ownership._replace(founders=present)
            self._directory.write_ownership(ownership)
        elif ownership.founders != present:
            lost = [o for (o, i), (_, j) in zip(ownership.founders, present, strict=True) if i != j]
            raise LocalError(
                f"the directory of node {lost[0]} was made anew while the cluster was being "
                f"founded; nothing was stored yet: `distkv local clean --dir "
                f"{self._directory.path}` and start again"
            )
        request = {
            "cluster_id": self._identity.cluster_id,
            "owner": ownership.owner,
            "layout": {
                "data_shards": self._identity.data_shards,
                "parity_shards": self._identity.parity_shards,
            },
            "members": ownership.founders,
        }
        await self._until_accepted(lambda: self._ask(0, "POST", "/v1/admin/found", request))
        return ownership

    async def _incarnation(self, ordinal: int) -> int:
        """Which directory the node really has; waits until it answers."""
        while True:
            answer = await self._ask(ordinal, "GET", "/v1/admin/identity")
            if answer.ok:
                return int(answer.body["incarnation"])
            if answer.status in FINAL_STATUS:
                raise LocalError(f"node {ordinal} refuses its owner: {answer.reason}")
            self._report(f"node {ordinal} does not answer yet ({answer.reason})")
            await asyncio.sleep(POLL_SECONDS)

    async def _until_accepted(self, request: Callable[[], Awaitable[Answer]]) -> None:
        while True:
            answer = await request()
            if answer.ok:
                return
            if answer.status in FINAL_STATUS:
                raise LocalError(f"founding was refused: {answer.reason}")
            self._report(f"founding: {answer.reason}")
            await asyncio.sleep(POLL_SECONDS)

    async def _submit_formed(self, ownership: Ownership) -> None:
        """Until some node says that the entry was applied; any node takes the command."""
        request = {"cluster_id": self._identity.cluster_id, "owner": ownership.owner}
        while True:
            for ordinal in range(self._identity.nodes):
                status = await self._ask_status(ordinal)
                if status.ok and status.body.get("formed"):
                    return
                if status.ok:
                    answer = await self._ask(ordinal, "POST", "/v1/admin/formed", request)
                    if answer.status == 403:
                        raise LocalError(f"another owner has this cluster: {answer.reason}")
                    self._report(f"forming: {answer.reason}")
            await asyncio.sleep(POLL_SECONDS)
