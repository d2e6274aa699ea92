"""The asyncio shell of the transport: a socket, a timer, names; all rules are in `Hub`.

Works with asyncio's loop and with uvloop. All methods belong to the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

from distkv.transport.agenda import AHEAD
from distkv.transport.base import Handler, Identity, Lane
from distkv.transport.hub import Datagrams, Hub
from distkv.transport.keys import KeyRing
from distkv.transport.options import DEFAULT_OPTIONS, Options
from distkv.transport.peers import PeerStatistics
from distkv.transport.udp import Traffic, UdpSocket, WouldBlock

RECEIVE_CALLS = 32
"""Receive calls in one wake-up, each up to 64 KiB; the loop then has its turn."""
RESOLVE_INTERVAL = 1.0
TIMER_RESOLUTION = 0.001
UNREAD_ROUNDS = 160
"""Times RECEIVE_CALLS are more datagrams than a socket holds: all that waited was heard then."""
MAX_ROUNDS = 4
"""Polls in one turn before other work of the loop goes first."""


class Endpoint:
    """A bound socket and its hub. Make one with `open_endpoint`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        udp: UdpSocket,
        identity: Identity,
        keys: KeyRing,
        handler: Handler,
        options: Options,
    ) -> None:
        self._loop = loop
        self._udp = udp
        self._handler = handler
        self._now = time.monotonic()
        self.hub = Hub(identity, keys, handler, os.urandom, options, udp.receive_buffer())
        self._names: dict[int, tuple[str, int]] = {}
        self._resolving: dict[int, asyncio.Task[None]] = {}
        self._backlog: Datagrams = []
        self._flush_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._resolve_timer: asyncio.TimerHandle | None = None
        self._in_turn = False
        self._held = False
        self._unread = 0
        self.closed = False
        loop.add_reader(udp.socket.fileno(), self._readable)
        self._resolve_all()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it is bound to."""
        name = self._udp.socket.getsockname()
        return name[0], name[1]

    # ---- Transport ---------------------------------------------------------------------------

    def send(self, ordinal: int, lane: Lane, payload: bytes, stream: int = 0) -> bool:
        """Queue for the peer at `ordinal`; leaves at the end of this turn of the loop.

        False: no connection, or its bounded queue is full (then `on_drained` follows).
        Raises ValueError for a message above the lane's limit.
        """
        if not self.hub.send(ordinal, lane, payload, stream):
            return False
        if self._flush_handle is None and not self._in_turn and not self._held:
            self._flush_handle = self._loop.call_soon(self.flush)
        return True

    def hold(self) -> None:
        """What is sent from here on waits for `flush`, which the caller promises."""
        self._held = True

    def queued(self, ordinal: int, lane: Lane) -> int:
        """Bytes queued or in flight to that peer on that lane."""
        return self.hub.queued(ordinal, lane)

    def connected(self, ordinal: int) -> Identity | None:
        """Who is connected at that seat."""
        return self.hub.connected(ordinal)

    def statistics(self) -> list[PeerStatistics]:
        """One for each connection."""
        return self.hub.statistics()

    def traffic(self) -> Traffic:
        """Since the start, over all connections and what belongs to none."""
        return Traffic(self._udp.sent, self._udp.received)

    # ---- peers and keys ----------------------------------------------------------------------

    def set_peer(self, ordinal: int, host: str, port: int) -> None:
        """Keep a connection to that seat; a name is looked up again while there is none."""
        self._names[ordinal] = (host, port)
        self._resolve(ordinal)

    def forget_peer(self, ordinal: int) -> None:
        """Close that connection and do not make it again."""
        self._names.pop(ordinal, None)
        self.hub.forget_peer(ordinal, time.monotonic())
        self._soon()

    def set_keys(self, keys: KeyRing) -> None:
        """Rotate the cluster key, see `KeyRing`."""
        self.hub.set_keys(keys, time.monotonic())
        self._soon()

    def set_identity(self, identity: Identity) -> None:
        """For later greetings (a cluster id was learnt)."""
        self.hub.set_identity(identity)

    def _resolve_all(self) -> None:
        for ordinal in self._names:
            if self.hub.connected(ordinal) is None:
                self._resolve(ordinal)
        self._resolve_timer = self._loop.call_later(RESOLVE_INTERVAL, self._resolve_all)

    def _resolve(self, ordinal: int) -> None:
        host, port = self._names[ordinal]
        try:
            found = self._lookup_numeric(host, port)
        except OSError:
            if ordinal not in self._resolving:
                task = self._loop.create_task(self._resolve_name(ordinal, host, port))
                self._resolving[ordinal] = task
            return
        self._resolved(ordinal, found)

    def _lookup_numeric(self, host: str, port: int) -> Any:
        """The address if `host` is one already; no look-up, so this does not block."""
        flags = socket.AI_NUMERICHOST | self._mapped()
        return socket.getaddrinfo(host, port, self._udp.socket.family, socket.SOCK_DGRAM, 0, flags)[
            0
        ][4]

    def _mapped(self) -> int:
        return socket.AI_V4MAPPED if self._udp.socket.family == socket.AF_INET6 else 0

    async def _resolve_name(self, ordinal: int, host: str, port: int) -> None:
        try:
            found = await self._loop.getaddrinfo(
                host,
                port,
                family=self._udp.socket.family,
                type=socket.SOCK_DGRAM,
                flags=self._mapped(),
            )
        except OSError:
            return  # not there (yet): asked again while there is no connection
        finally:
            self._resolving.pop(ordinal, None)
        if not self.closed and self._names.get(ordinal) == (host, port) and found:
            self._resolved(ordinal, found[0][4])

    def _resolved(self, ordinal: int, address: Any) -> None:
        self.hub.set_peer(ordinal, address, time.monotonic())
        self._soon()

    # ---- turns -------------------------------------------------------------------------------

    def _take(self, datagram: memoryview, source: Any) -> None:
        self.hub.receive(datagram, source, self._now)

    def _drain_socket(self, *, all_of_it: bool) -> bool:
        """Deliver what has arrived, a bounded part of it, and let the handler react once.

        False: there may be more. `all_of_it`: know for certain; else the loop tells of the rest.
        """
        receive, take = self._udp.receive, self._take
        arrived = emptied = False
        self._in_turn = True
        try:
            for _ in range(RECEIVE_CALLS):
                self._now = time.monotonic()
                if not receive(take):
                    emptied = True
                    break
                arrived = True
                if self.closed or not (all_of_it or self._udp.more()):
                    break
            if arrived:
                self._handler.on_turn()
        finally:
            self._in_turn = False
        return emptied

    def _readable(self) -> None:
        if not self.closed:
            self._drain_socket(all_of_it=False)
            self.flush()

    def _soon(self) -> None:
        if self._flush_handle is None and not self.closed:
            self._flush_handle = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what may be sent, then see when to wake up next."""
        self._held = False
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self.closed:
            return
        hub = self.hub
        now = time.monotonic()
        due = hub.rests(now)
        if due is not None:
            if self._timer is None or due < self._timer_at:
                self._arm(due, now)
            return
        for _ in range(MAX_ROUNDS):
            if self._backlog:
                return  # the socket is full: `_writable` goes on
            self._transmit(hub.poll(now))
            now = time.monotonic()
            due = hub.timeout(now)
            if due is None or due > now:
                break
            self._advance(now, heard=False)
        else:
            self._soon()
        if due is not None:
            self._arm(due, now)

    def _transmit(self, batches: Datagrams) -> None:
        for place, (address, datagrams) in enumerate(batches):
            try:
                self._udp.send(address, datagrams, self._refused)
            except WouldBlock as full:
                self._backlog = [(address, datagrams[full.sent :]), *batches[place + 1 :]]
                self._loop.add_writer(self._udp.socket.fileno(), self._writable)
                return

    def _refused(self, address: Any, size: int) -> None:
        self.hub.refused_size(address, size, time.monotonic())

    def _writable(self) -> None:
        self._loop.remove_writer(self._udp.socket.fileno())
        backlog, self._backlog = self._backlog, []
        self._transmit(backlog)
        if not self._backlog:
            self.flush()

    def _arm(self, due: float, now: float) -> None:
        """One timer; one that fires too early is cheaper than cancelling it at every turn, but
        not than to move it while awake anyway."""
        if self._timer is not None:
            if self._timer_at <= due and (now + AHEAD < self._timer_at or due < now + 2 * AHEAD):
                return
            self._timer.cancel()
        self._timer_at = due
        # The loop's clock lags behind: without the addition most timers fire too early, twice.
        self._timer = self._loop.call_later(due - now + TIMER_RESOLUTION, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self.closed:
            return
        now = time.monotonic()
        due = self.hub.timeout(now)
        if due is not None and due > now:
            self._arm(due, now)
            return
        # After a stall of this process the answers already wait in the socket: silence is
        # judged only once they were heard.
        self._unread = 0 if self._drain_socket(all_of_it=True) else self._unread + 1
        if not self.closed:
            heard = self._unread in (0, UNREAD_ROUNDS)
            self._unread %= UNREAD_ROUNDS
            self._advance(time.monotonic(), heard)
            self.flush()

    def _advance(self, now: float, heard: bool) -> None:
        if self.hub.on_timer(now, heard):
            self._handler.on_turn()

    def close(self) -> None:
        """Tell the peers, best effort, and give the port back. No handler is called later
        than during this call."""
        if self.closed:
            return
        self.hub.close(time.monotonic())
        if not self._backlog:
            self._transmit(self.hub.poll(time.monotonic()))
        self.closed = True
        self._loop.remove_reader(self._udp.socket.fileno())
        self._loop.remove_writer(self._udp.socket.fileno())
        for handle in (self._timer, self._resolve_timer, self._flush_handle):
            if handle is not None:
                handle.cancel()
        for task in list(self._resolving.values()):
            task.cancel()
        self._udp.close()


async def open_endpoint(
    identity: Identity,
    keys: KeyRing,
    handler: Handler,
    host: str,
    port: int,
    options: Options = DEFAULT_OPTIONS,
    *,
    offload: bool = True,
) -> Endpoint:
    """Bind to `host` (a name or an address; "" for all of IPv4) and start.

    Raises OSError: the name is unknown, or the port is taken.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or "0.0.0.0", port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    udp = UdpSocket(family, address, offload=offload)
    return Endpoint(loop, udp, identity, keys, handler, options)
