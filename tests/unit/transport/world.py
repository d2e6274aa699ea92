"""Hubs over a simulated network in virtual time; everything from one seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from distkv.transport.base import Identity, Lane
from distkv.transport.hub import Hub
from distkv.transport.keys import KeyRing
from distkv.transport.options import Options

CLUSTER = b"0123456789abcdef"
SECRET = b"a secret of thirty-two bytes ...!"
SMALL = Options(datagram_sizes=(1452,))


@dataclass
class Link:
    """Faults of the network; `rate` in bytes per second with a queue of `queue` bytes."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0005
    late: float = 0.02
    rate: float = 0.0
    queue: int = 1 << 20
    shared: bool = False
    """All datagrams to one target share one queue."""
    largest: int = 65507
    cut: Callable[[int, int], bool] = lambda source, target: False
    tamper: Callable[[bytes], bytes | None] = lambda datagram: datagram


@dataclass
class Recorder:
    """A handler that writes everything down."""

    clock: Callable[[], float]
    messages: list[tuple[int, Lane, bytes]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    up: list[Identity] = field(default_factory=list)
    down: list[tuple[Identity, str]] = field(default_factory=list)
    drained: list[tuple[int, Lane]] = field(default_factory=list)
    suspicions: list[tuple[str, str, str]] = field(default_factory=list)

    def on_message(self, peer: Identity, lane: Lane, payload: bytes) -> None:
        self.messages.append((peer.ordinal, lane, payload))
        self.times.append(self.clock())

    def on_peer_up(self, peer: Identity) -> None:
        self.up.append(peer)

    def on_peer_down(self, peer: Identity, reason: str) -> None:
        self.down.append((peer, reason))

    def on_drained(self, ordinal: int, lane: Lane) -> None:
        self.drained.append((ordinal, lane))

    def on_suspicion(self, source: str, kind: str, detail: str) -> None:
        self.suspicions.append((source, kind, detail))

    def on_turn(self) -> None:
        pass

    def kinds(self) -> set[str]:
        return {kind for _, kind, _ in self.suspicions}


@dataclass
class Node:
    """One hub at one address."""

    hub: Hub
    handler: Recorder
    address: str


class World:
    """`run` delivers datagrams and timers in time order until a condition holds."""

    def __init__(self, seed: int, link: Link | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.link = link or Link()
        self.nodes: dict[str, Node] = {}
        self.sent: list[tuple[float, str, str, bytes]] = []
        self.keep_sent = False
        self.datagrams = 0
        self.steps = 0
        self._free: dict[tuple[str, str], float] = {}
        self._heap: list[tuple[float, int, str, str, bytes]] = []
        self._count = 0

    def add(
        self,
        ordinal: int,
        *,
        boot: int = 1,
        incarnation: int | None = None,
        cluster: bytes = CLUSTER,
        generation: int = 1,
        keys: KeyRing | None = None,
        options: Options = SMALL,
        address: str | None = None,
    ) -> Node:
        """Start a node; at an address in use it takes the place of the one there."""
        who = Identity(cluster, generation, ordinal, incarnation or 1000 + ordinal, boot)
        handler = Recorder(lambda: self.now)
        generator = random.Random(self.random.random())
        hub = Hub(who, keys or KeyRing(SECRET), handler, generator.randbytes, options)
        node = Node(hub, handler, address or f"node-{ordinal}")
        self.nodes[node.address] = node
        return node

    def join(self, *nodes: Node) -> None:
        """Everybody knows everybody."""
        for one in nodes:
            for other in nodes:
                if one is not other:
                    ordinal = other.hub.identity.ordinal
                    one.hub.set_peer(ordinal, other.address, self.now)

    def pair(self, **options: object) -> tuple[Node, Node]:
        """Nodes 0 and 1, connected."""
        one, other = self.add(0, **options), self.add(1, **options)  # type: ignore[arg-type]
        self.join(one, other)
        self.run(lambda: bool(one.hub.connected(1) and other.hub.connected(0)))
        return one, other

    def post(self, source: str, target: str, datagram: bytes) -> None:
        """Put a datagram on the network as it is."""
        link = self.link
        self.datagrams += 1
        if self.keep_sent:
            self.sent.append((self.now, source, target, datagram))
        if link.cut(_ordinal(source), _ordinal(target)) or len(datagram) > link.largest:
            return
        changed = link.tamper(datagram)
        if changed is None or self.random.random() < link.loss:
            return
        start = self.now
        if link.rate:
            way = ("", target) if link.shared else (source, target)
            start = max(self._free.get(way, 0.0), self.now)
            if (start - self.now) * link.rate > link.queue:
                return
            start += len(datagram) / link.rate
            self._free[way] = start
        for _ in range(2 if self.random.random() < link.duplicate else 1):
            late = link.late * self.random.random() if self.random.random() < link.reorder else 0.0
            self._push(start + link.delay + late, source, target, changed)

    def _push(self, when: float, source: str, target: str, datagram: bytes) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, source, target, datagram))

    def flush(self) -> None:
        """Let every hub send."""
        for node in list(self.nodes.values()):
            for address, datagrams in node.hub.poll(self.now):
                for datagram in datagrams:
                    self.post(node.address, str(address), datagram)

    def step(self, limit: float) -> bool:
        """Go to the next event, not beyond `limit`; False if there is none."""
        self.steps += 1
        self.flush()
        when = limit
        for node in self.nodes.values():
            due = node.hub.timeout(self.now)
            if due is not None:
                when = min(when, max(due, self.now))
        if self._heap and self._heap[0][0] <= when:
            self.now, _, source, target, datagram = heapq.heappop(self._heap)
            node_or_none = self.nodes.get(target)
            if node_or_none is not None:
                node_or_none.hub.receive(datagram, source, self.now)
            return True
        if when >= limit:
            self.now = limit
            return False
        self.now = when
        for node in list(self.nodes.values()):
            due = node.hub.timeout(self.now)
            if due is not None and due <= self.now:
                node.hub.on_timer(self.now)
        return True

    def run(self, until: Callable[[], bool], within: float = 30.0) -> None:
        """Until the condition holds; fails when it does not within `within` virtual seconds."""
        limit = self.now + within
        while not until():
            if not self.step(limit):
                raise AssertionError(f"not reached within {within} virtual seconds")

    def run_messages(self, node: Node, count: int) -> None:
        """Until `node` has received so many messages."""
        self.run(lambda: len(node.handler.messages) >= count)

    def run_connected(self, one: Node, other: Node, within: float = 10.0) -> None:
        """Until these two use one and the same connection."""
        self.run(lambda: agree(one, other), within)

    def spend(self, seconds: float) -> None:
        """Let virtual time pass."""
        limit = self.now + seconds
        while self.step(limit):
            pass


def agree(one: Node, other: Node) -> bool:
    """Whether both use one and the same connection."""
    there = one.hub._peers.get(other.hub.identity.ordinal)
    back = other.hub._peers.get(one.hub.identity.ordinal)
    if there is None or back is None or there.session is None or back.session is None:
        return False
    a, b = there.session, back.session
    return (a.local, a._remote) == (b._remote, b.local)


def _ordinal(address: str) -> int:
    digits = "".join(character for character in address if character.isdigit())
    return int(digits) if digits else -1
