"""Three nodes that share one store behind links, and a gateway before them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from integration.doors.support import FakeStore, run, until

from distkv import operations as op
from distkv.api.link.server import LinkServer
from distkv.api.options import Limits, LinkOptions, Listen
from distkv.gateway.options import GatewayOptions
from distkv.gateway.store import GatewayStore


class NodeStore(FakeStore):
    """One node's view of the shared state."""

    def __init__(self, shared: FakeStore) -> None:
        super().__init__()
        self.shared = shared
        self.info["serving"] = True

    def apply(self, operation: op.Operation) -> object:
        self.shared.fail_download_at = self.fail_download_at
        result = self.shared.apply(operation)
        self.shared.executed.append(operation)
        return result


class Cluster:
    """Nodes' links over one state, and a gateway."""

    def __init__(self, count: int, options: dict[str, Any], limits: Limits) -> None:
        self.shared = FakeStore()
        self.limits = limits
        self.stores = [NodeStore(self.shared) for _ in range(count)]
        self.servers: list[LinkServer] = []
        self.options = options
        self.gateway: GatewayStore = None  # type: ignore[assignment]

    async def start(self) -> None:
        for store in self.stores:
            server = LinkServer(store, LinkOptions(Listen(), self.limits))
            await server.start()
            self.servers.append(server)
        nodes = tuple(("127.0.0.1", server.port) for server in self.servers)
        values: dict[str, Any] = {"probe": 0.05, "limits": self.limits} | self.options
        self.gateway = GatewayStore(GatewayOptions(nodes, **values))
        self.gateway.start()
        await until(lambda: self.gateway.nodes.serving == len(self.stores))

    async def close(self) -> None:
        await self.gateway.close()
        for server in self.servers:
            await server.close()
        await until(lambda: not any(server.connections for server in self.servers))
        assert self.gateway.retained.used == 0
        assert all(server.budget.used == 0 for server in self.servers)
        assert not any(store.open_uploads() for store in self.stores)
        assert all(download.closed for download in self.shared.downloads)

    def kill(self, index: int) -> None:
        """As kill -9: connections break, nobody listens."""
        server = self.servers[index]
        assert server._listener is not None
        server._listener.close()
        for connection in list(server.connections):
            connection.abort()

    async def revive(self, index: int) -> None:
        port = self.gateway.nodes.links[index].options.port
        server = LinkServer(self.stores[index], LinkOptions(Listen(port=port), self.limits))
        await server.start()
        self.servers[index] = server

    async def do(self, operation: op.Operation, seconds: float = 10.0) -> Any:
        """Execute and wait."""
        result = self.gateway.execute(operation, self.gateway.now() + seconds)
        return await settled(result)

    def busy_node(self) -> int:
        """The node that is asked now."""
        return next(i for i, link in enumerate(self.gateway.nodes.links) if link.in_flight)


async def settled(future: Any) -> Any:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_callback(lambda _: done.done() or done.set_result(None))
    await asyncio.wait_for(done, 30)
    return future.result()


def with_cluster(
    test: Callable[[Cluster], Awaitable[None]],
    count: int = 3,
    limits: Limits | None = None,
    **options: Any,
) -> None:
    async def body() -> None:
        cluster = Cluster(count, options, limits or Limits())
        await cluster.start()
        await test(cluster)
        await cluster.close()

    run(body)


def put(key: bytes, value: Any, **options: Any) -> op.Write:
    return op.Write((op.Put(key, value, **options),))


def upload(cluster: Cluster, value: bytes, step: int = 50_000) -> Any:
    """An upload that was written as fast as the gateway took it."""
    sink = cluster.gateway.upload(len(value))
    for at in range(0, len(value), step):
        sink.write(value[at : at + step])
    sink.finish()
    return sink


async def read_all(value: Any) -> bytes:
    if isinstance(value.data, bytes):
        return value.data
    pieces = []
    while piece := await settled(value.data.next()):
        pieces.append(piece)
    value.data.close()
    return b"".join(pieces)
