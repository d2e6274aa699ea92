"""Messages between simulated members through the production transport, over bad datagrams.

Each life of a process has a `transport.hub.Hub` of its own: greetings, keys, encryption,
acknowledgements, retransmission, lanes and credit are the real ones. What `transport.endpoint`
does with a socket and a loop is done here with the world's clock.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from distkv.simulation.datagrams import Datagram, Datagrams
from distkv.simulation.echo import echo
from distkv.simulation.transport_check import NUMBER, TransportChecker
from distkv.transport.base import Identity, Lane
from distkv.transport.hub import Hub
from distkv.transport.keys import KeyRing
from distkv.transport.options import BEAT_BYTES, MESSAGE_OVERHEAD, Options
from distkv.wire.codec import encode

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

SECRET = b"the key of all simulated clusters"
WAKE = 0.0001
"""From the first datagram of a wake-up to the answers."""
RESOLUTION = 0.001
LOOK = 0.2
ROUNDS = 4
TIGHT = 0.4
"""Share of the worlds whose bulk windows are tight."""
PAYLOAD_BYTES = 30 * 1024
"""Messages of one turn to one peer travel together up to this size ..."""
TIGHT_PAYLOAD_BYTES = 1024
"""... or, on the bulk lane, to this one where windows are tight."""
PIECE_ROOM = 1024
"""For what a message holds besides the piece, or a payload of several messages."""


def draw_options(rng: random.Random) -> Options:
    """Windows that fill up, sizes that do not always pass."""
    message = 128 * 1024
    window = message + rng.choice((64 * 1024, 128 * 1024))
    bulk = rng.choice((40 * 1024, 40 * 1024, 256 * 1024))
    return Options(
        control_message=message,
        bulk_message=bulk,
        control_queue=rng.choice((192 * 1024, 1 << 20)),
        bulk_queue=bulk + rng.choice((128, 256 * 1024)),
        control_window=window,
        bulk_window=bulk + rng.choice((128, 64 * 1024)),
        datagram_sizes=rng.choice(((), (1452,), (8_952, 1_472), (61_440, 8_952, 1_472, 1_452))),
        probe_interval=rng.choice((1.0, 60.0)),
        initial_window=rng.choice((6_000, 64 * 1024)),
    )


def tighten(options: Options, largest: int) -> Options:
    """Bulk windows and queues that few messages fill, so that one more waits for credit.

    `largest`: bytes of the largest piece of a value.
    """
    message = largest + PIECE_ROOM
    return replace(
        options,
        bulk_message=message,
        bulk_queue=message + 64 * 1024,
        bulk_window=message + MESSAGE_OVERHEAD,
    )


class _Line:
    """The transport of one life of a process: a hub, its timer, and its handler."""

    def __init__(self, network: HubNetwork, host: Host) -> None:
        self._network = network
        self._world = network.world
        self._host = host
        self._generation = host.generation
        rng = random.Random(network.rng.getrandbits(64))
        self.hub = Hub(
            host.name,
            KeyRing(SECRET),
            self,
            rng.randbytes,
            network.options,
            network.rng.choice((24 * 1024, 1 << 20)),
        )
        assert host.member is not None
        self.hub.seated = host.member.is_member
        self.hub.outdated = host.member.outdated
        self._timer_at = float("inf")
        self._flush_due = False
        for other in range(len(network.datagrams.addresses)):
            if other != host.ordinal:
                self.hub.set_peer(other, network.datagrams.address(other), self._world.now)
        self._resolve()
        self.soon()

    @property
    def alive(self) -> bool:
        """Whether this life goes on."""
        return self._host.alive and self._host.generation == self._generation

    # -- transport.base.Handler

    def on_message(self, peer: Identity, lane: Lane, payload: bytes) -> None:
        """See Handler."""
        plain = self._network.checker.received(self.hub.identity, peer, lane, payload)
        if self.alive:
            self._host.receive(peer, plain)

    def on_peer_up(self, peer: Identity) -> None:
        """See Handler."""
        self._network.checker.connected(self.hub, peer)
        if self.alive:
            assert self._host.member is not None
            self._host.member.peer_up(peer)
            self._host.wake()

    def on_peer_down(self, peer: Identity, reason: str) -> None:
        """See Handler."""
        if self.alive:
            assert self._host.member is not None
            self._host.member.peer_down(peer)
            self._host.wake()

    def on_drained(self, ordinal: int, lane: Lane) -> None:
        """See Handler."""
        if self.alive:
            assert self._host.member is not None
            self._host.member.drained(ordinal, lane)
            self._host.wake()

    def on_suspicion(self, source: str, kind: str, detail: str) -> None:
        """See Handler."""
        self._network.suspicions[kind] = self._network.suspicions.get(kind, 0) + 1
        if kind == "protocol_error":
            self._world.violation(f"node {self._host.ordinal} suspects a correct peer: {detail}")
        if self.alive:
            assert self._host.member is not None
            self._host.member.suspect(source, kind, detail)

    def on_turn(self) -> None:
        """Turns run of themselves soon after a message."""

    # -- as in transport.endpoint

    def arrive(self, datagram: Datagram) -> None:
        """Bytes from the network."""
        if self.alive:
            self._network.checker.arrived(self.hub.identity, datagram)
            self.hub.receive(datagram.body, datagram.source, self._world.now)
            self._network.checker.taken(self.hub, datagram)
            self.soon()

    def soon(self) -> None:
        """Send what there is to send, a moment later."""
        if not self._flush_due:
            self._flush_due = True
            self._world.after(WAKE, self._flush_if_due)

    def _flush_if_due(self) -> None:
        if self._flush_due and self.alive:
            self.flush()

    def flush(self) -> None:
        """Send now, then see when to wake up next."""
        self._flush_due = False
        hub, now = self.hub, self._world.now
        due: float | None = None
        for _ in range(ROUNDS):
            self._transmit(now)
            due = hub.timeout(now)
            if due is None or due > now:
                break
            if hub.on_timer(now):
                self._host.wake()
        if due is not None:
            self._arm(due)

    def _transmit(self, now: float) -> None:
        network, identity = self._network, self.hub.identity
        for address, bodies in self.hub.poll(now):
            for body in bodies:
                if len(body) > network.interface:
                    self.hub.refused_size(address, len(body), now)
                    continue
                network.checker.posted(identity, body)
                network.datagrams.post(identity.ordinal, address, body)  # type: ignore[arg-type]

    def _arm(self, due: float) -> None:
        now = self._world.now
        due = max(due, now + RESOLUTION)
        if now < self._timer_at <= due:
            return
        self._timer_at = due
        self._world.after(due - now, lambda: self._fired(due))

    def _fired(self, due: float) -> None:
        if not self.alive or self._timer_at != due:
            return
        self._timer_at = float("inf")
        if self.hub.on_timer(self._world.now):
            self._host.wake()
        self.flush()

    def _resolve(self) -> None:
        """Names of peers that are not connected are looked up again."""
        if not self.alive:
            return
        network, world = self._network, self._world
        for other in range(len(network.datagrams.addresses)):
            if other != self._host.ordinal and self.hub.connected(other) is None:
                self.hub.set_peer(other, network.datagrams.address(other), world.now)
        network.checker.look(self.hub)
        world.after(LOOK, self._resolve)
        self.soon()


class HubNetwork:
    """The same as `network.Network` to hosts and faults; `cut`: ordered pairs of ordinals."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.transport_rng
        self.options = draw_options(self.rng)
        self._bulk_payload = PAYLOAD_BYTES
        # Drawn apart: no other draw is another one because of it.
        if random.Random(f"windows of world {world.seed}").random() < TIGHT:
            largest = min(world.member_options.stripe_bytes, max(world.lengths))
            self.options = tighten(self.options, largest)
            self._bulk_payload = TIGHT_PAYLOAD_BYTES
        self.datagrams = Datagrams(world, self._arrive)
        self.datagrams.largest = self.rng.choice((1_252, 1_472, 65_507, 65_507))
        self.interface = self.rng.choice((1_500, 9_000, 65_507))
        """Longer datagrams are refused by the machine that sends them."""
        self.checker = TransportChecker(world, self.options)
        self.suspicions: dict[str, int] = {}
        self.sent = 0
        self.bytes = 0
        self._lines: dict[int, _Line] = {}

    @property
    def cut(self) -> set[tuple[int, int]]:
        """Ordered pairs (from, to) over which nothing passes."""
        return self.datagrams.cut

    def connect_loop(self) -> None:
        """Hubs connect by themselves."""

    @property
    def delivered(self) -> int:
        """Messages that the production transport delivered."""
        return self.checker.delivered

    def heal(self) -> None:
        """Everything passes again."""
        self.datagrams.cut.clear()
        self.datagrams.clogged.clear()

    def add(self, ordinal: int) -> None:
        """One more machine, at an address that nobody had; the others look it up."""
        addresses = self.datagrams.addresses
        if ordinal == len(addresses):
            addresses.append(0)
        else:
            addresses[ordinal] += 1

    def started(self, host: Host) -> None:
        """A process starts, perhaps at another address."""
        if self.world.faults.move and self.rng.random() < 0.5:
            self.datagrams.move(host.ordinal)
        line = self._lines[host.ordinal] = _Line(self, host)
        self.checker.started(line.hub.identity)

    def crashed(self, host: Host) -> None:
        """A process died, and tells nobody."""
        line = self._lines.pop(host.ordinal, None)
        if line is not None:
            self.checker.died(line.hub.identity)

    def room(self, ordinal: int, to: int, lane: Lane) -> int:
        """As `runtime.node` computes it."""
        line = self._lines.get(ordinal)
        return 0 if line is None else self.options.bulk_queue - line.hub.queued(to, lane)

    def send(
        self, source: Host, ordinal: int, lane: Lane, stream: int, batch: list[object]
    ) -> None:
        """Hand over to the hub; what it has no room for is lost, as in `runtime.driver`."""
        limit = PAYLOAD_BYTES if lane is Lane.CONTROL else self._bulk_payload
        if lane is Lane.BEAT:
            limit = BEAT_BYTES - NUMBER.size
        for payload in _payloads(batch, limit):
            if echo(self.world, source, batch, payload):
                return
            line = self._lines.get(source.ordinal)
            target = None if line is None else line.hub.connected(ordinal)
            if line is None or target is None:
                return
            self.sent += 1
            self.bytes += len(payload)
            numbered = self.checker.numbered(payload)
            if line.hub.send(ordinal, lane, numbered, stream):
                self.checker.sent(line.hub.identity, target, lane, stream, numbered)

    def turn_ended(self, host: Host) -> None:
        """Datagrams leave at the end of a turn."""
        line = self._lines.get(host.ordinal)
        if line is not None and line.alive:
            line.flush()

    def _arrive(self, datagram: Datagram) -> None:
        line = self._lines.get(datagram.target[0])
        if line is not None:
            line.arrive(datagram)


def _payloads(batch: list[object], limit: int) -> list[bytes]:
    payload = encode(batch)
    if len(payload) <= limit or len(batch) == 1:
        return [payload]
    middle = len(batch) // 2
    return _payloads(batch[:middle], limit) + _payloads(batch[middle:], limit)
