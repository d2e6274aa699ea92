"""The nodes behind a gateway, and which of them takes the next request."""

from __future__ import annotations

import random
from collections.abc import Callable, Container

from distkv.api.link.client import ClientOptions, LinkClient
from distkv.gateway.options import GatewayOptions

FRAME_OVERHEAD = 1024 * 1024


class Nodes:
    """Links to all nodes; `on_change` is called when one came, went or serves (again)."""

    def __init__(self, options: GatewayOptions, on_change: Callable[[], None]) -> None:
        self._options = options
        self._on_change = on_change
        self._in_flight_max = options.in_flight_max
        self._random = random.Random()
        self.links = [self._link(host, port) for host, port in options.nodes]

    def _link(self, host: str, port: int) -> LinkClient:
        options = self._options
        return LinkClient(
            ClientOptions(
                host,
                port,
                options.token,
                options.name,
                options.probe,
                options.limits.command_bytes_max + FRAME_OVERHEAD,
                options.in_flight_max,
            ),
            self._on_change,
        )

    def start(self) -> None:
        """Begin connecting."""
        for link in self.links:
            link.start()

    def take(self, nodes: tuple[tuple[str, int], ...]) -> None:
        """The list changed: connect to new ones, end links to others (what is under way there
        is tried elsewhere), keep the rest as they are."""
        kept = {(link.options.host, link.options.port): link for link in self.links}
        self.links = []
        for host, port in nodes:
            link = kept.pop((host, port), None)
            if link is None:
                link = self._link(host, port)
                link.start()
            self.links.append(link)
        for link in kept.values():
            link.close()

    async def close(self) -> None:
        """End all links."""
        for link in self.links:
            link.close()

    @property
    def serving(self) -> int:
        """How many say that they take requests."""
        return sum(1 for link in self.links if link.serving)

    @property
    def connected(self) -> int:
        """How many can be reached."""
        return sum(1 for link in self.links if link.connected)

    @property
    def all_full(self) -> bool:
        """Whether every node that can be reached has as many requests as it may have."""
        reached = [link for link in self.links if link.connected]
        return bool(reached) and all(link.in_flight >= self._in_flight_max for link in reached)

    def pick(self, exclude: Container[LinkClient] = ()) -> LinkClient | None:
        """The better of two random nodes: fewer requests under way, quicker to answer a ping.

        Mitzenmacher, "The power of two choices in randomized load balancing" (2001). Nodes
        that do not serve are asked only if no other is left.
        """
        usable = [
            link
            for link in self.links
            if link.connected and link not in exclude and link.in_flight < self._in_flight_max
        ]
        serving = [link for link in usable if link.serving] or usable
        if len(serving) <= 2:
            return min(serving, key=_cost) if serving else None
        return min(self._random.sample(serving, 2), key=_cost)


def _cost(link: LinkClient) -> float:
    return (link.in_flight + 1) * link.latency
