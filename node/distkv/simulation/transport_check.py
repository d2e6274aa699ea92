"""What the transport promises, checked apart from it: from what enters and leaves it.

Every payload gets a number in front. So it shows whether one arrives twice, out of the order
of its stream, changed, or at another life of a machine than it was sent to.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from distkv.transport.base import Identity, Lane
from distkv.transport.packet import DATA, HEADER, HEADER_BYTES

if TYPE_CHECKING:
    from distkv.simulation.datagrams import Datagram
    from distkv.simulation.full_world import World
    from distkv.transport.hub import Hub
    from distkv.transport.options import Options
    from distkv.transport.outgoing import OutgoingLane

NUMBER = Struct(">Q")
CREDIT_SECONDS = 3.5
"""A clogged link delays what is on it for 2.4 s, and a loss for less than the rest."""
_Line = tuple[Identity, int]
"""(who listens, its number of the connection)"""
_Stream = tuple[Identity, Identity, int, int]


class _Sent(NamedTuple):
    source: Identity
    target: Identity
    lane: int
    stream: int
    payload: bytes


class TransportChecker:
    """See the module."""

    def __init__(self, world: World, options: Options) -> None:
        self._world = world
        self._options = options
        # A connection is confirmed within this time after the answer to a fresh greeting.
        self._slack = 1.25 * options.dial_timeout_limit + 0.1
        self._numbers = 0
        self._under_way: dict[int, _Sent] = {}
        self._newest_message: dict[_Stream, int] = {}
        self._packets: set[tuple[Identity, int, int]] = set()
        self._ended: dict[Identity, float] = {}
        self._newest: dict[_Line, Datagram] = {}
        """Of what arrived, what was sent last ..."""
        self._heard: dict[_Line, float] = {}
        """... and when it arrived, or the connection was made."""
        self._blocked: dict[tuple[Identity, int, int], tuple[int, float]] = {}
        """(who sends, its number of the connection, lane) -> what it had charged, since when."""
        self.delivered = 0

    # -- messages

    def numbered(self, payload: bytes) -> bytes:
        """`payload` with the next number in front."""
        self._numbers += 1
        return NUMBER.pack(self._numbers) + payload

    def sent(
        self, source: Identity, target: Identity, lane: Lane, stream: int, payload: bytes
    ) -> None:
        """The transport took `payload`, number included, for `target`."""
        number = NUMBER.unpack_from(payload)[0]
        self._under_way[number] = _Sent(source, target, int(lane), stream, payload)

    def received(self, own: Identity, peer: Identity, lane: Lane, payload: bytes) -> bytes:
        """The transport hands out `payload`; what its sender's member had sent."""
        number = NUMBER.unpack_from(payload)[0]
        sent = self._under_way.get(number)
        if sent is None or sent.payload != payload:
            self._world.violation(f"node {own.ordinal} receives a message that nobody sent")
        if (sent.source, sent.lane) != (peer, int(lane)):
            self._world.violation(f"message {number} of {sent.source} is said to be of {peer}")
        if sent.target != own:
            self._world.violation(f"message {number} to {sent.target} arrives at {own}")
        if lane is Lane.BEAT:  # in no order, and lost when it is lost, but once
            del self._under_way[number]
            self.delivered += 1
            return payload[NUMBER.size :]
        key = (sent.source, own, sent.lane, sent.stream)
        newest = self._newest_message.get(key, 0)
        if number <= newest:
            order = "twice" if number == newest else "out of order, or twice"
            self._world.violation(
                f"message {number} of node {peer.ordinal} arrives {order} at node {own.ordinal}"
            )
        self._newest_message[key] = number
        self.delivered += 1
        return payload[NUMBER.size :]

    # -- datagrams

    def posted(self, source: Identity, body: bytes) -> None:
        """A machine sends a datagram: its number was never used before."""
        if not body[0] & DATA:
            return
        _, connection, low = HEADER.unpack_from(body)
        packet = (source, connection, low)
        if packet in self._packets:
            self._world.violation(f"node {source.ordinal} seals two datagrams under one nonce")
        self._packets.add(packet)
        if len(body) <= HEADER_BYTES:
            self._world.violation(f"node {source.ordinal} sends a datagram without a tag")

    def arrived(self, own: Identity, datagram: Datagram) -> None:
        """A datagram reaches a machine: the newest of a connection shows that its peer lives.

        No copy does, nor a damaged one, nor one that was sent before another that is here. It
        does not matter where it seems to come from: somebody who listened may be the first to
        deliver what was lost, and no machine can tell that from a slow path.
        """
        number, body = datagram.number, datagram.body
        if number < 0 or not body[0] & DATA:
            return
        line = (own, HEADER.unpack_from(body)[1])
        newest = self._newest.get(line)
        if newest is None or number > newest.number:
            self._newest[line] = datagram
            self._heard[line] = self._world.now

    def taken(self, hub: Hub, datagram: Datagram) -> None:
        """The hub took in a datagram: what it holds is bounded at every moment."""
        if len(datagram.body) < HEADER_BYTES or not datagram.body[0] & DATA:
            return
        peer = hub._connections.get(HEADER.unpack_from(datagram.body)[1])
        if peer is None or peer.session is None:
            return
        held = (peer.session._control_in.held, peer.session._bulk_in.held)
        options = self._options
        if held[0] > options.control_window or held[1] > options.bulk_window:
            own = hub.identity.ordinal
            self._world.violation(f"node {own} holds {held} bytes of unfinished messages")

    # -- connections

    def died(self, life: Identity) -> None:
        """A process ended."""
        self._ended[life] = self._world.now

    def started(self, life: Identity) -> None:
        """A process began; one on a directory that went back has the name of an earlier one."""
        self._ended.pop(life, None)

    def connected(self, hub: Hub, peer: Identity) -> None:
        """A connection was made: to somebody who is there, or was a moment ago."""
        own, session = hub.identity, hub._peers[peer.ordinal].session
        assert session is not None
        self._heard[own, session.local] = self._world.now
        ended = self._ended.get(peer)
        if ended is not None and self._world.now > ended + self._slack:
            self._world.violation(
                f"node {own.ordinal} connects to {peer}, which ended "
                f"{self._world.now - ended:.1f} s ago"
            )

    def look(self, hub: Hub) -> None:
        """What a hub queues is bounded, nobody silent counts as connected, and all are answered
        where they are."""
        own, world, options = hub.identity, self._world, self._options
        queues = (options.control_queue, options.bulk_queue)
        for ordinal, peer in hub._peers.items():
            session = peer.session
            if session is None:
                continue
            line = (own, session.local)
            heard = self._heard[line]
            if world.now - heard > options.dead_after + 0.3:
                world.violation(
                    f"node {own.ordinal} holds on to node {ordinal}, from which nothing new "
                    f"arrived for {world.now - heard:.2f} s"
                )
            newest = self._newest.get(line)
            if newest is not None and peer.address != newest.source:
                world.violation(
                    f"node {own.ordinal} answers node {ordinal} at {peer.address}, though the "
                    f"newest datagram came from {newest.source}"
                )
            for outgoing in (session._control_out, session._bulk_out):
                self._waits(own, session.local, outgoing)
            for lane in (0, 1):
                if session.queued(lane) > queues[lane]:
                    world.violation(f"node {own.ordinal} queues {session.queued(lane)} bytes")

    def _waits(self, own: Identity, connection: int, lane: OutgoingLane) -> None:
        """Who takes a message in as it arrives gives credit for another: no lane stands still."""
        key, now = (own, connection, lane.lane), self._world.now
        if not lane.blocked:
            self._blocked.pop(key, None)
            return
        charged, since = self._blocked.setdefault(key, (lane._charged, now))
        if charged != lane._charged:
            self._blocked[key] = (lane._charged, now)
        elif now - since > CREDIT_SECONDS:
            self._world.violation(
                f"node {own.ordinal} waits {now - since:.1f} s for credit to send a message"
            )
