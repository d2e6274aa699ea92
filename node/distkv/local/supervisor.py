"""The process that owns a local cluster: starts its processes, founds it, takes commands.

It restarts nothing by itself: a node that was killed stays down until `start`, and one that
ended unexpectedly is reported. When it ends, by whatever means, so do its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from distkv.local import control
from distkv.local.ask import Answer, ask
from distkv.local.directory import Directory, Layout
from distkv.local.errors import LocalError
from distkv.local.layout import children, node_child, write_configurations
from distkv.local.owner import Owner
from distkv.local.ports import PortPlan, check_free
from distkv.local.processes import Child
from distkv.local.relayout import Relayout
from distkv.local.replacing import Replacer
from distkv.local.status import gather

GRACE_SECONDS = 5.0
"""For children to hand over and stop, before they are killed."""
POLL_SECONDS = 0.02
RETRY_SECONDS = 5.0

Say = Callable[[str], None]


class Supervisor:
    """Owns `directory`, which must be locked by this process and hold a cluster."""

    def __init__(self, directory: Directory, say: Say) -> None:
        self._directory = directory
        self._say = say
        self.identity = directory.identity()
        self.plan = PortPlan(self.identity.port_base, directory.nodes)
        self.children = children(directory)
        self._token = directory.token()
        self._stop = asyncio.Event()
        self._looking_after: list[asyncio.Future[None]] = []
        self._waiting_for = "the processes to start"
        self._reported: set[str] = set()
        self._replacer = Replacer(directory, self.ask_admin, self._ask_status, self.is_running, say)
        self._relayout = Relayout(directory, self, say)

    async def run(self, on_ready: Callable[[], None], ready_within: float) -> None:
        """Run until a signal or `down`. Raises LocalError if it cannot become ready."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        await self.kill_leftovers()
        self._replacer.finish_wipes()
        check_free(self.plan)
        write_configurations(self._directory)
        server = await control.serve(self._directory, self._perform)
        try:
            for child in self.children:
                child.start()
            await self._become_ready(ready_within)
            if not self._stop.is_set():
                on_ready()
            while not self._stop.is_set():
                self._report_exits()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), 0.2)
        finally:
            for task in self._looking_after:
                task.cancel()
            await self.stop_all()
            server.close()
            (self._directory / control.SOCKET).unlink(missing_ok=True)

    async def kill_leftovers(self) -> None:
        """End what a supervisor that was killed left, so that its ports are free."""
        for child in self.children:
            child.kill_leftover()

    # -- becoming ready

    async def _become_ready(self, within: float) -> None:
        owner = Owner(self._directory, self.ask_admin, self._ask_status, self._note)
        work = asyncio.ensure_future(self._form_and_wait(owner))
        stop = asyncio.ensure_future(self._stop.wait())
        deadline = time.monotonic() + within
        try:
            while not work.done() and not stop.done():
                await asyncio.wait({work, stop}, timeout=0.1, return_when="FIRST_COMPLETED")
                self._check_alive()
                if time.monotonic() > deadline:
                    raise LocalError(
                        f"not ready after {within:.0f} s: still waiting for {self._waiting_for}; "
                        f"the logs are in {self._directory.path}"
                    )
            if work.done():
                work.result()
        finally:
            work.cancel()
            stop.cancel()

    async def _form_and_wait(self, owner: Owner) -> None:
        await owner.form()
        self._looking_after = [
            asyncio.ensure_future(self._for_ever("replacing wiped nodes", self._replacer.run)),
            asyncio.ensure_future(self._for_ever("changing the layout", self._relayout.run)),
        ]
        self._note("the gateway to be ready")
        while not (answer := await ask(self.plan.gateway_http, "GET", "/readyz")).ok:
            self._note(f"the gateway to be ready ({answer.reason})")
            await asyncio.sleep(POLL_SECONDS)

    async def _for_ever(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong once, such as a full disk below owner.json, is tried again."""
        while True:
            try:
                await run()
            except (OSError, LocalError, KeyError, TypeError, ValueError) as error:
                self._say(f"{what}: {error!r}; trying again")
            await asyncio.sleep(RETRY_SECONDS)

    # -- the layout changes: `relayout.Hands`

    def is_running(self, ordinal: int) -> bool:
        """Whether the process of a node runs."""
        return ordinal < len(self.children) - 1 and self.children[ordinal].state == "running"

    def check_ports(self, nodes: int) -> None:
        """See relayout.Hands."""
        if nodes > self.plan.nodes:
            check_free(self.plan._replace(nodes=nodes), first=self.plan.nodes)

    def resize(self, nodes: int) -> None:
        """See relayout.Hands. The gateway and the nodes see by themselves that their files
        changed."""
        present = len(self.children) - 1
        if (present, self.plan.nodes) == (nodes, nodes):
            return
        write_configurations(self._directory)
        self.plan = self.plan._replace(nodes=nodes)
        for ordinal in range(present, nodes):
            child = node_child(self._directory, ordinal)
            self.children.insert(ordinal, child)
            child.start()
            self._say(f"{child.name} started (pid {child.pid}): it joins")

    async def remove(self, ordinal: int) -> None:
        """See relayout.Hands."""
        assert ordinal == len(self.children) - 2, "only the last node is removed"
        child = self.children[ordinal]
        child.asked_down = True
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGCONT)
        while not await self._ended([child]):
            child.signal(signal.SIGKILL)
        child.gone()
        self.children.remove(child)
        self._directory.forget_node(ordinal)
        self._say(f"{child.name} left the cluster: its process and its directory are removed")

    def _note(self, waiting_for: str) -> None:
        self._waiting_for = waiting_for

    def _check_alive(self) -> None:
        """A new cluster needs all its processes; a formed one goes on without a few."""
        self._report_exits()
        for child in self.children:
            if child.state == "exited" and not self._directory.ownership().formed:
                raise LocalError(
                    f"{child.name} ended while starting (exit code {child.exit_code}); the end "
                    f"of {child.log}:\n{child.last_words()}"
                )

    async def ask_admin(self, ordinal: int, method: str, path: str, body: Any = None) -> Answer:
        """Ask the admin listener of a node."""
        return await ask(self.plan.node(ordinal).admin, method, path, body, self._token)

    async def _ask_status(self, ordinal: int) -> Answer:
        return await ask(self.plan.node(ordinal).http, "GET", "/v1/status")

    # -- running

    def _report_exits(self) -> None:
        for child in self.children:
            if child.state != "exited":
                self._reported.discard(child.name)
            elif child.name not in self._reported:
                self._reported.add(child.name)
                child.gone()
                self._say(
                    f"{child.name} ended unexpectedly (exit code {child.exit_code}), see "
                    f"{child.log}; start it again with: {self._example('start', child)}"
                )

    def _example(self, command: str, child: Child) -> str:
        ordinal = child.name.removeprefix("node-")
        return f"distkv local {command} {ordinal} --dir {self._directory.path}"

    async def _perform(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "status":
            return await gather(
                self._directory, self._directory.identity(), self.children, self._replacer.stage
            )
        if command == "down":
            self._stop.set()
            return None
        if command == "layout":
            wanted = Layout(int(arguments["data_shards"]), int(arguments["parity_shards"]))
            return self._relayout.want(wanted)
        if command == "layout-progress":
            return self._relayout.progress()
        child = self._child(str(arguments["who"]))
        if command == "kill":
            return await self._kill(child, int(arguments["signal"]))
        if command == "start":
            return self._start(child)
        if command == "wipe":
            return self._wipe(child)
        raise LocalError(f"unknown command {command}")

    def _child(self, who: str) -> Child:
        name = who if who == "gateway" else f"node-{who}"
        for child in self.children:
            if child.name == name:
                return child
        last = len(self.children) - 2
        raise LocalError(f'there is no node {who}: ordinals go from 0 to {last}; or say "gateway"')

    async def _kill(self, child: Child, number: int) -> str:
        if not child.is_running:
            raise LocalError(f"{child.name} is not running")
        name = signal.Signals(number).name
        keeps = number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2)
        child.asked_down = not keeps
        child.signal(number)
        if keeps:
            return f"{child.name} was sent {name}"
        if not await self._ended([child]):
            return f"{child.name} was sent {name} and is still stopping"
        child.gone()
        return f"{child.name} is down ({name})"

    def _start(self, child: Child) -> str:
        if child.state == "stopped":
            child.signal(signal.SIGCONT)
            return f"{child.name} goes on"
        if child.is_running:
            raise LocalError(f"{child.name} is running already (pid {child.pid})")
        child.start()
        return f"{child.name} started (pid {child.pid})"

    def _wipe(self, child: Child) -> str:
        if child.name == "gateway":
            raise LocalError("the gateway has no data")
        if child.is_running:
            raise LocalError(
                f"{child.name} is running; take it down first: {self._example('kill', child)}"
            )
        self._replacer.wipe(int(child.name.removeprefix("node-")))
        text = f"the data of {child.name} are gone; start it with: {self._example('start', child)}"
        return text + self._beyond_budget()

    def _beyond_budget(self) -> str:
        """A warning, if more disks are lost now than the cluster bears."""
        lost = len(self._directory.ownership().lost)
        k, m = self._directory.identity().layout
        f = min(m, (k + m - 1) // 2)
        if lost <= f:
            return ""
        return (
            f"\nbeware: {lost} disks are lost and not replaced yet, {f} may be: without a quorum "
            "of those left, none can be replaced, and nothing can be read or written"
        )

    # -- stopping

    async def stop_all(self) -> None:
        """Ask all children to stop, gateway first; kill those that do not."""
        for child in reversed(self.children):
            child.asked_down = True
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)
        while not await self._ended(self.children):
            for child in self.children:
                child.signal(signal.SIGKILL)
        for child in self.children:
            child.gone()

    async def _ended(self, some: list[Child]) -> bool:
        """Wait until they have all ended; False if they have not within the grace."""
        deadline = time.monotonic() + GRACE_SECONDS
        while any(child.is_running for child in some):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True
