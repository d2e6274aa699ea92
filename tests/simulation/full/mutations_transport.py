"""Known mistakes of the transport, looked for in worlds where the production one runs."""

from __future__ import annotations

from typing import Any

from simulation.full.mutating import Patch, mutation

from distkv.transport import hub as hub_module
from distkv.transport import session as session_module
from distkv.transport.base import Identity
from distkv.transport.hub import Hub
from distkv.transport.incoming import IncomingLane
from distkv.transport.keys import ConnectionKeys
from distkv.transport.outgoing import OutgoingLane
from distkv.transport.packet import HEADER
from distkv.transport.peers import Peer
from distkv.transport.ranges import Received
from distkv.transport.recovery import Recovery
from distkv.transport.session import Session


@mutation
def retransmit_without_dedup(patch: Patch) -> None:
    """A message that was sent again is handed out again."""
    original = IncomingLane.whole

    def whole(self: IncomingLane, stream: int, sequence: int, payload: bytes, out: Any) -> None:
        behind = (sequence - self._expected[stream]) & 0xFFFFFFFF >= 0x80000000
        if behind:
            out.append((self._lane, payload))
            return
        original(self, stream, sequence, payload, out)

    patch(IncomingLane, "whole", whole)


@mutation
def order_of_streams_ignored(patch: Patch) -> None:
    """A whole message is handed out as it comes."""
    original = IncomingLane.whole

    def whole(self: IncomingLane, stream: int, sequence: int, payload: bytes, out: Any) -> None:
        ahead = (sequence - self._expected[stream]) & 0xFFFFFFFF
        if 0 < ahead < 0x80000000:
            out.append((self._lane, payload))
            return
        original(self, stream, sequence, payload, out)

    patch(IncomingLane, "whole", whole)


@mutation
def nonce_reused(patch: Patch) -> None:
    """A datagram that fills in for a lost one is sealed under the lost one's number."""
    original = Session._again

    def again(self: Session, packets: Any) -> None:
        original(self, packets)
        if packets:
            self._recovery.next_number = min(self._recovery.next_number, packets[0][0])

    patch(Session, "_again", again)


@mutation
def replay_window_off(patch: Patch) -> None:
    """Every authentic datagram counts, however often it comes."""
    patch(Received, "seen", lambda self, number: False)


@mutation
def replay_window_forgets(patch: Patch) -> None:
    """Numbers below the newest run are taken for new."""
    patch(Received, "seen", lambda self, number: self.bottom <= number <= self.top)


@mutation
def credit_lost(patch: Patch) -> None:
    """A lost CREDIT frame is not sent again."""
    original = Recovery.add

    def add(self: Recovery, number: int, packet: Any) -> None:
        original(self, number, (*packet[:3], False))

    patch(Recovery, "add", add)


@mutation
def credit_not_respected(patch: Patch) -> None:
    """Messages are begun whatever the receiver granted."""
    original = OutgoingLane.fill

    def fill(self: OutgoingLane, *arguments: Any) -> int:
        self._credit = 1 << 60
        return original(self, *arguments)

    patch(OutgoingLane, "fill", fill)


@mutation
def lost_pieces_forgotten(patch: Patch) -> None:
    """What a lost datagram carried is not sent again."""
    patch(OutgoingLane, "again", lambda self, chunk, number: None)
    patch(OutgoingLane, "probe", lambda self, chunk: None)


@mutation
def acknowledged_piece_is_the_message(patch: Patch) -> None:
    """A message counts as arrived with its first piece, so lost pieces are not sent again."""
    original = OutgoingLane.again

    def again(self: OutgoingLane, chunk: Any, number: int) -> None:
        if chunk.message.unacknowledged == chunk.message.length:
            original(self, chunk, number)

    patch(OutgoingLane, "again", again)


@mutation
def tag_not_checked(patch: Patch) -> None:
    """Datagrams are neither encrypted nor authenticated."""

    class Open:
        """Sixteen bytes instead of a tag."""

        def encrypt(self, nonce: bytes, plain: bytes, header: bytes) -> bytes:
            return plain + bytes(16)

        def decrypt(self, nonce: bytes, sealed: Any, header: Any) -> bytes:
            return bytes(sealed[:-16])

    patch(hub_module, "connection_keys", lambda *a, **k: ConnectionKeys(Open(), Open()))  # type: ignore[arg-type]


@mutation
def connected_before_the_proof(patch: Patch) -> None:
    """A greeting is enough: who sends an old one again replaces the connection."""
    original = Hub._half_open_for

    def half_open_for(self: Hub, peer: Peer, key: Any, hello: bytes, *rest: Any) -> None:
        original(self, peer, key, hello, *rest)
        half_open = peer.half_open
        assert half_open is not None
        self._establish(peer, half_open.session, key, half_open.address, rest[-1])

    patch(Hub, "_half_open_for", half_open_for)


@mutation
def greetings_played_again_are_taken(patch: Patch) -> None:
    """No greeting is remembered, nor the boot of who greets."""
    connected_before_the_proof(patch)
    judge = Hub._judge

    def judged(self: Hub, greeting: Any, now: float) -> int:
        self._hellos.clear()
        found = judge(self, greeting, now)
        return 0 if found == hub_module.handshake.OLD_BOOT else found

    patch(Hub, "_judge", judged)


@mutation
def next_life_taken_for_the_last(patch: Patch) -> None:
    """A connection says who was there when the seat was first seen."""
    original = Hub._establish

    def establish(self: Hub, peer: Peer, session: Session, *rest: Any) -> None:
        first = self.__dict__.setdefault("first", {}).setdefault(peer.ordinal, session.peer)
        assert isinstance(first, Identity)
        session.peer = first
        original(self, peer, session, *rest)

    patch(Hub, "_establish", establish)


@mutation
def silence_not_noticed(patch: Patch) -> None:
    """A peer that is not heard stays connected."""

    def on_timer(
        self: Session, now: float, heard: bool = True, original: Any = Session.on_timer
    ) -> None:
        self.last_heard = now
        self._recovery.progress = now
        original(self, now, heard)

    patch(Session, "on_timer", on_timer)


@mutation
def held_back_datagrams_are_life(patch: Patch) -> None:
    """A datagram that was sent before the newest, and comes after it, shows a peer alive."""
    original = Session.receive

    def receive(self: Session, flags: int, low: int, datagram: Any, now: float) -> Any:
        out = original(self, flags, low, datagram, now)
        if out is not None and out is not session_module.DUPLICATE:
            self.last_heard = now
        return out

    patch(Session, "receive", receive)


@mutation
def address_never_moves(patch: Patch) -> None:
    """A peer at another address is answered at its old one, and stays connected."""
    original = Hub._deliver

    def deliver(
        self: Hub, peer: Peer, session: Session, messages: Any, address: Any, now: float
    ) -> None:
        original(self, peer, session, messages, peer.address, now)

    patch(Hub, "_deliver", deliver)


@mutation
def number_expanded_wrongly(patch: Patch) -> None:
    """The full packet number is guessed one too high: no datagram opens."""
    patch(session_module, "expand", lambda low, largest: low + 1)


@mutation
def held_without_bound(patch: Patch) -> None:
    """Unfinished messages are kept whatever the window is, and credit is given for them."""

    def hold(self: IncomingLane, length: int) -> None:
        self.held += length + 128
        self.consumed += length

    patch(IncomingLane, "_hold", hold)


assert HEADER.size == 9, "the patches above know the format"
