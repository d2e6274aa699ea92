"""All connections of one node, without sockets: demultiplexing, greeting, replacing.

A datagram is (bytes, address); an address is any hashable the owner understands. Both sides of
a pair may greet at once; the result is one connection:

- the lower ordinal's greeting stands: it ignores the other's while its own is young; the
  higher one gives its own up when it is greeted. So a pair has one handshake under way.
- an incoming connection takes effect, and replaces an older one, only when the initiator has
  proved with a first data datagram that it knows the keys of this very handshake.
- a restarted peer (a higher boot) replaces its old self so; a lower boot than seen is refused,
  and so is another incarnation at a seat whose present holder is heard, but for the member.
"""

from __future__ import annotations

from collections.abc import Callable

from distkv.transport import handshake
from distkv.transport.agenda import Agenda
from distkv.transport.base import STREAMS, UNKNOWN_GENERATION, Handler, Identity, Lane
from distkv.transport.connection import KEY_RETIRED, REPLACED, STOPPED
from distkv.transport.handshake import BadGreeting, Greeting
from distkv.transport.incoming import Messages
from distkv.transport.keys import ClusterKey, KeyRing, connection_keys
from distkv.transport.options import DEFAULT_OPTIONS, Options
from distkv.transport.packet import DATA, DATAGRAM_OVERHEAD, HEADER, HELLO, WELCOME
from distkv.transport.peers import Address, Dial, HalfOpen, Peer, PeerStatistics, parameters
from distkv.transport.session import DUPLICATE, Session

Datagrams = list[tuple[Address, list[bytes]]]

HELLOS_REMEMBERED = 1024
REPLAY_AGE = 5.0
"""A HELLO seen again within this time is a duplicate of the network, later a replay."""
IGNORE_ATTEMPTS = 2
HIGHER_WAITS = 0.03
"""Head start (seconds) of the lower ordinal's greeting."""
REFUSED_WAIT = 1.0


class Hub:
    """See the module. `entropy(n)` gives n random bytes (os.urandom, or a seeded generator's)."""

    def __init__(
        self,
        identity: Identity,
        keys: KeyRing,
        handler: Handler,
        entropy: Callable[[int], bytes],
        options: Options = DEFAULT_OPTIONS,
        socket_buffer: int = 1 << 20,
    ) -> None:
        """`socket_buffer`: bytes the owner's socket holds before datagrams are dropped."""
        self.identity = identity
        self._keys = keys
        self._handler = handler
        self._entropy = entropy
        self._options = options
        self._socket_buffer = socket_buffer
        self.seated: Callable[[int, int], bool] = lambda ordinal, incarnation: False
        """Whether this incarnation is the member at that ordinal, as far as is known here."""
        self.outdated: Callable[[Identity], None] = lambda peer: None
        """Called when that peer refuses this node because it met a later boot of it."""
        self._peers: dict[int, Peer] = {}
        self._connections: dict[int, Peer] = {}
        self._half_open: dict[int, HalfOpen] = {}
        self._session_keys: dict[int, ClusterKey] = {}
        self._hellos: dict[bytes, float] = {}
        self._out: Datagrams = []
        self._agenda = Agenda(self._peers)
        self.closed = False

    # ---- what the node asks ------------------------------------------------------------------

    def set_peer(self, ordinal: int, address: Address, now: float) -> None:
        """Keep a connection to `ordinal`; call again when its address is another one."""
        assert ordinal != self.identity.ordinal, "a node does not connect to itself"
        self._agenda.all()
        peer = self._peer(ordinal)
        if not peer.wanted:
            peer.wanted = True
            peer.dial_at = now + (HIGHER_WAITS if ordinal < self.identity.ordinal else 0.0)
        if peer.session is None:
            if peer.address != address and peer.dial is None:
                peer.attempts = 0
            peer.address = address

    def forget_peer(self, ordinal: int, now: float) -> None:
        """Close the connection to `ordinal` and do not greet it again (it may greet us)."""
        peer = self._peers.get(ordinal)
        if peer is not None:
            peer.wanted = False
            peer.dial = None
            if peer.session is not None:
                self._drop(peer, "forgotten", STOPPED, now)

    def set_identity(self, identity: Identity) -> None:
        """For later greetings (a cluster id was learnt); connections stay as they are."""
        self.identity = identity

    def set_keys(self, keys: KeyRing, now: float) -> None:
        """Rotate: connections made with a key that is no longer accepted are made anew."""
        self._keys = keys
        for peer in list(self._peers.values()):
            session = peer.session
            if session is not None and keys.find(self._session_keys[session.local].name) is None:
                self._drop(peer, "key retired", KEY_RETIRED, now)
                peer.dial_at = now

    def send(self, ordinal: int, lane: Lane, payload: bytes, stream: int = 0) -> bool:
        """Queue a message. False: no connection, or its bounded queue is full.

        Raises ValueError for a message above the lane's limit.
        """
        assert 0 <= stream < STREAMS
        peer = self._peers.get(ordinal)
        if peer is None or peer.session is None:
            return False
        self._agenda.touched[ordinal] = peer
        return peer.session.send(lane, stream, payload)

    def queued(self, ordinal: int, lane: Lane) -> int:
        """Bytes queued or in flight to that peer on that lane, with their overhead."""
        peer = self._peers.get(ordinal)
        return 0 if peer is None or peer.session is None else peer.session.queued(lane)

    def connected(self, ordinal: int) -> Identity | None:
        """Who is connected at that seat."""
        peer = self._peers.get(ordinal)
        return None if peer is None or peer.session is None else peer.session.peer

    def statistics(self) -> list[PeerStatistics]:
        """One for each connection."""
        return [
            PeerStatistics(peer.session.peer, peer.address, peer.session.statistics())
            for peer in self._peers.values()
            if peer.session is not None
        ]

    def close(self, now: float) -> None:
        """Tell all peers; what is still queued is lost. `poll` gives the last datagrams."""
        self.closed = True
        for peer in list(self._peers.values()):
            peer.wanted = False
            if peer.session is not None:
                self._drop(peer, "closed", STOPPED, now)

    # ---- datagrams in ------------------------------------------------------------------------

    def receive(self, datagram: bytes | memoryview, address: Address, now: float) -> None:
        """Take any bytes from anywhere: never raises, changes nothing without a valid tag."""
        size = len(datagram)
        if size < DATAGRAM_OVERHEAD or self.closed:
            return
        kind = datagram[0]
        if kind & DATA:
            kind, connection, low = HEADER.unpack_from(datagram)
            peer = self._connections.get(connection)
            if peer is not None:
                session = peer.session
                assert session is not None
                messages = session.receive(kind, low, datagram, now)
                if messages is None:
                    self._suspect(address, "bad_tag", f"connection of node {peer.ordinal}")
                elif messages is not DUPLICATE:
                    due = session.rests(now)
                    if due is None:
                        self._agenda.touched[peer.ordinal] = peer
                    else:
                        self._agenda.soon(due)
                    self._deliver(peer, session, messages, address, now)
            elif connection in self._half_open:
                self._confirm(connection, kind, low, datagram, address, now)
            return
        try:
            if kind == HELLO:
                self._hello(bytes(datagram), address, now)
            elif kind == WELCOME:
                self._welcome(bytes(datagram), address, now)
        except BadGreeting as bad:
            self._suspect(address, bad.kind, f"greeting of {size} bytes")

    def _suspect(self, address: Address, kind: str, detail: str) -> None:
        self._handler.on_suspicion(str(address), kind, detail)

    def _deliver(
        self, peer: Peer, session: Session, messages: Messages, address: Address, now: float
    ) -> None:
        handler = self._handler
        if session.moved and address != peer.address:
            peer.address = address
            session.path_changed(now)
        if messages:
            who = session.peer
            for lane, payload in messages:
                handler.on_message(who, _LANES[lane], payload)
        if session.drained:
            drained, session.drained = session.drained, []
            for lane in drained:
                handler.on_drained(peer.ordinal, _LANES[lane])
        if session.closed is not None and peer.session is session:
            if session.closed.startswith("protocol error"):
                self._suspect(address, "protocol_error", session.closed)
            self._gone(peer, session.closed, now)

    # ---- greeting ----------------------------------------------------------------------------

    def _peer(self, ordinal: int) -> Peer:
        peer = self._peers.get(ordinal)
        if peer is None:
            peer = self._peers[ordinal] = Peer(ordinal)
        return peer

    def _connection_id(self) -> int:
        while True:
            connection = int.from_bytes(self._entropy(4), "big")
            taken = connection in self._connections or connection in self._half_open
            if not taken and not any(
                peer.dial is not None and peer.dial.connection == connection
                for peer in self._peers.values()
            ):
                return connection

    def _greeting(self, status: int, target: int, connection: int) -> Greeting:
        options = self._options
        limits = (options.control_window, options.bulk_window, self._socket_buffer)
        return Greeting(status, self.identity, target, connection, *limits)

    def _dial(self, peer: Peer, now: float) -> None:
        """Send a fresh HELLO, never the same twice."""
        connection = self._connection_id()
        key = self._keys.current
        greeting = self._greeting(handshake.ACCEPTED, peer.ordinal, connection)
        hello = handshake.seal_hello(key, self._entropy(handshake.RANDOM_BYTES), greeting)
        peer.attempts += 1
        dial = peer.dial = Dial(connection, hello, key, peer.attempts)
        options = self._options
        wait = options.dial_timeout * 1.5 ** min(peer.attempts - 1, 16)
        jitter = 0.75 + self._entropy(1)[0] / 512
        dial.started = now
        dial.deadline = now + min(wait, options.dial_timeout_limit) * jitter
        self._out.append((peer.address, [hello]))

    def _judge(self, greeting: Greeting, now: float) -> int:
        """Whether who greets may be connected: ACCEPTED or the refusal."""
        own, who = self.identity, greeting.identity
        if own.cluster and who.cluster:  # a node that is not in a cluster yet has no id
            if own.cluster != who.cluster:
                return handshake.FOREIGN_CLUSTER
            unknown = UNKNOWN_GENERATION in (own.generation, who.generation)
            if own.generation != who.generation and not unknown:
                return handshake.FOREIGN_GENERATION
        if greeting.target != own.ordinal or who.ordinal == own.ordinal:
            return handshake.WRONG_TARGET
        peer = self._peers.get(who.ordinal)
        if peer is None:
            full = len(self._peers) >= self._options.peers_limit
            return handshake.TOO_MANY if full else handshake.ACCEPTED
        if peer.incarnation == who.incarnation:
            return handshake.OLD_BOOT if who.boot < peer.boot else handshake.ACCEPTED
        if (
            peer.session is not None
            and now < peer.session.last_heard + 2 * self._options.ping_interval
            and not self._comes_before(who, peer.session.peer)
        ):
            return handshake.SEAT_TAKEN
        return handshake.ACCEPTED

    def _comes_before(self, who: Identity, holder: Identity) -> bool:
        """A member need not wait until a stranger at its seat is silent: who was replaced may
        live on for ever, and without its successor no quorum be left."""
        seated = self.seated
        return seated(who.ordinal, who.incarnation) and not seated(
            holder.ordinal, holder.incarnation
        )

    def _hello(self, datagram: bytes, address: Address, now: float) -> None:
        key = self._keys.find(handshake.hello_key_name(datagram))
        if key is None:
            raise BadGreeting("unknown_key")
        random = handshake.hello_random(datagram)
        seen = self._hellos.get(random)
        if seen is not None:
            if now - seen > REPLAY_AGE:
                self._suspect(address, "replayed_greeting", f"{now - seen:.0f} s old")
            return
        greeting = handshake.open_hello(key, datagram)
        self._hellos[random] = now
        if len(self._hellos) > HELLOS_REMEMBERED:
            del self._hellos[next(iter(self._hellos))]
        refusal = self._judge(greeting, now)
        if refusal:
            self._suspect(address, handshake.REFUSALS[refusal], str(greeting.identity))
            self._answer(key, datagram, refusal, greeting, 0, address)
            return
        peer = self._peer(greeting.identity.ordinal)
        dial = peer.dial
        if dial is not None:
            if self.identity.ordinal < peer.ordinal and dial.attempt <= IGNORE_ATTEMPTS:
                return
            peer.dial = None
            peer.dial_at = now + self._options.dial_timeout_limit
            self._agenda.all()
        self._half_open_for(peer, key, datagram, greeting, address, now)

    def _answer(
        self,
        key: ClusterKey,
        hello: bytes,
        status: int,
        greeting: Greeting,
        connection: int,
        address: Address,
    ) -> bytes:
        answer = self._greeting(status, greeting.identity.ordinal, connection)
        random = self._entropy(handshake.RANDOM_BYTES)
        welcome = handshake.seal_welcome(key, random, hello, greeting.connection, answer)
        self._out.append((address, [welcome]))
        return welcome

    def _half_open_for(
        self,
        peer: Peer,
        key: ClusterKey,
        hello: bytes,
        greeting: Greeting,
        address: Address,
        now: float,
    ) -> None:
        self._agenda.all()
        if peer.half_open is not None:
            del self._half_open[peer.half_open.session.local]
        elif len(self._half_open) >= self._options.half_open_limit:
            oldest = self._half_open.pop(next(iter(self._half_open)))
            oldest.peer.half_open = None
        connection = self._connection_id()
        welcome = self._answer(key, hello, handshake.ACCEPTED, greeting, connection, address)
        keys = connection_keys(key, hello, welcome, initiator=False)
        session = Session(
            greeting.identity,
            keys,
            parameters(connection, greeting),
            self._options,
            now,
            self._options.dial_timeout,
        )
        deadline = now + self._options.dial_timeout_limit
        peer.half_open = HalfOpen(session, peer, address, key, deadline)
        self._half_open[connection] = peer.half_open

    def _welcome(self, datagram: bytes, address: Address, now: float) -> None:
        connection = handshake.welcome_connection(datagram)
        for peer in self._peers.values():
            dial = peer.dial
            if dial is not None and dial.connection == connection:
                break
        else:
            return
        greeting = handshake.open_welcome(dial.key, datagram, dial.hello)
        refusal = greeting.status or self._judge(greeting, now)
        if not refusal and greeting.identity.ordinal != peer.ordinal:
            refusal = handshake.WRONG_TARGET
        if refusal:
            kind = handshake.REFUSALS.get(refusal, "refused")
            self._suspect(address, kind, f"answer of {greeting.identity}")
            peer.dial = None
            peer.dial_at = now + REFUSED_WAIT
            self._agenda.all()
            if greeting.status == handshake.OLD_BOOT:
                self.outdated(greeting.identity)
            return
        keys = connection_keys(dial.key, dial.hello, datagram, initiator=True)
        rtt = max(now - dial.started, 1e-5)
        session = Session(
            greeting.identity, keys, parameters(connection, greeting), self._options, now, rtt
        )
        session.greet()
        self._establish(peer, session, dial.key, address, now)

    def _confirm(
        self,
        connection: int,
        flags: int,
        low: int,
        datagram: bytes | memoryview,
        address: Address,
        now: float,
    ) -> None:
        half_open = self._half_open[connection]
        messages = half_open.session.receive(flags, low, datagram, now)
        if messages is None:
            self._suspect(address, "bad_tag", f"new connection of {half_open.session.peer}")
            return
        peer = half_open.peer
        who = half_open.session.peer
        if peer.incarnation == who.incarnation and who.boot < peer.boot:
            return  # overtaken by its own next boot
        self._establish(peer, half_open.session, half_open.key, address, now)
        self._deliver(peer, half_open.session, messages, address, now)

    def _establish(
        self, peer: Peer, session: Session, key: ClusterKey, address: Address, now: float
    ) -> None:
        if peer.half_open is not None:
            del self._half_open[peer.half_open.session.local]
            peer.half_open = None
        if peer.session is not None:
            old = peer.session.peer
            same = (old.incarnation, old.boot) == (session.peer.incarnation, session.peer.boot)
            self._drop(peer, "reconnected" if same else "restarted", REPLACED, now)
        self._agenda.all()
        peer.dial = None
        peer.attempts = 0
        peer.session = session
        peer.address = address
        peer.incarnation = session.peer.incarnation
        peer.boot = session.peer.boot
        self._connections[session.local] = peer
        self._session_keys[session.local] = key
        self._handler.on_peer_up(session.peer)

    def _drop(self, peer: Peer, reason: str, code: int, now: float) -> None:
        """End a connection from our side."""
        session = peer.session
        assert session is not None
        self._out.append((peer.address, [session.close(code, now)]))
        self._gone(peer, reason, now)

    def _gone(self, peer: Peer, reason: str, now: float) -> None:
        session = peer.session
        assert session is not None
        self._agenda.all()
        peer.session = None
        peer.dial_at = now + (HIGHER_WAITS if peer.ordinal < self.identity.ordinal else 0.0)
        del self._connections[session.local]
        del self._session_keys[session.local]
        self._handler.on_peer_down(session.peer, reason)

    # ---- datagrams out, time -----------------------------------------------------------------

    def poll(self, now: float) -> Datagrams:
        """What to send now: (address, datagrams of it in order)."""
        out, self._out = self._out, []
        for peer in self._agenda.due(now):
            session = peer.session
            if session is not None:
                datagrams = session.transmit(now)
                if datagrams:
                    out.append((peer.address, datagrams))
        return out

    def rests(self, now: float) -> float | None:
        """When `timeout` must be asked if nothing is to be sent before; None: `poll` first."""
        return None if self._out else self._agenda.rests(now)

    def timeout(self, now: float) -> float | None:
        """When `on_timer` and then `poll` must be called; None: never. It may be too early."""
        return now if self._out else self._agenda.timeout(now)

    def on_timer(self, now: float, heard: bool = True) -> bool:
        """Losses, silence, greetings; whether a peer went down. Harmless when called early.

        `heard` false: datagrams may wait unread, so no peer is taken for silent.
        """
        self._agenda.all()
        down = False
        for peer in list(self._peers.values()):
            half_open = peer.half_open
            if half_open is not None and now >= half_open.deadline:
                del self._half_open[half_open.session.local]
                peer.half_open = None
            session = peer.session
            if session is not None:
                session.on_timer(now, heard)
                if session.closed is not None:
                    self._gone(peer, session.closed, now)
                    down = True
            elif peer.wanted:
                due = peer.dial.deadline if peer.dial is not None else peer.dial_at
                if now >= due:
                    if peer.half_open is None:
                        self._dial(peer, now)
                    else:
                        peer.dial = None
                        peer.dial_at = peer.half_open.deadline
        return down

    def refused_size(self, address: Address, size: int, now: float) -> None:
        """The local interface takes no datagram of `size` bytes towards `address`."""
        self._agenda.all()
        for peer in self._peers.values():
            if peer.session is not None and peer.address == address:
                peer.session.refused_size(size, now)


_LANES = (Lane.CONTROL, Lane.BULK, Lane.BEAT)
