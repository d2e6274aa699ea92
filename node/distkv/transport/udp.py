"""One non-blocking UDP socket, with the kernel's segmentation offload where there is one.

UDP_SEGMENT lets one call send many datagrams of one size, UDP_GRO lets one call receive many
(udp(7)); the cost of a call is what bounds the throughput of a Python process.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import termios
from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any, NamedTuple

UDP_SEGMENT = 103
UDP_GRO = 104
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3
"""Never fragment, and ignore what routers claim: the session probes sizes itself."""

SEGMENTS_LIMIT = 60
SEGMENTED_BYTES_LIMIT = 65_000
BUFFER_BYTES = 4 << 20

_NO_OFFLOAD = (errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT)
_SEGMENT = Struct("=H")
_GRO_SIZE = Struct("=i")
_NOTHING = bytes(4)
"""FIONREAD's answer if no datagram waits, or an empty one."""
_ANCILLARY = socket.CMSG_SPACE(_GRO_SIZE.size)


Refused = Callable[[Any, int], None]


class WouldBlock(Exception):
    """The socket takes no more now; `sent` datagrams of the list were taken."""

    def __init__(self, sent: int) -> None:
        super().__init__(sent)
        self.sent = sent


class Traffic(NamedTuple):
    """Bytes of UDP payload."""

    sent: int
    received: int


class UdpSocket:
    """`address` arguments and results are the kernel's tuples, as getaddrinfo gives them."""

    def __init__(self, family: int, address: Any, *, offload: bool = True) -> None:
        """Bind to `address`; raises OSError (the address is taken, or not ours)."""
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._set_buffers()
            self._never_fragment(family)
            self.segment = offload and self._enable(UDP_SEGMENT, 0)
            self.coalesce = offload and self._enable(UDP_GRO, 1)
            self.socket.bind(address)
        except BaseException:
            self.socket.close()
            raise
        self.sent = self.received = 0
        """Bytes of datagrams' payloads."""
        self._view = memoryview(bytearray(65_536))
        self._descriptor = self.socket.fileno()

    def _set_buffers(self) -> None:
        for force, plain in (
            (SO_RCVBUFFORCE, socket.SO_RCVBUF),
            (SO_SNDBUFFORCE, socket.SO_SNDBUF),
        ):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
            except OSError:  # not privileged: as much as the system allows
                self.socket.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)

    def _never_fragment(self, family: int) -> None:
        try:
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
            self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        except OSError:
            pass  # an IPv6-only socket, or a system without the option

    def _enable(self, option: int, value: int) -> bool:
        try:
            self.socket.setsockopt(socket.IPPROTO_UDP, option, value)
        except OSError:
            return False
        return True

    def receive_buffer(self) -> int:
        """Bytes of payload the socket holds at least; the kernel counts about double."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 4

    def receive(self, take: Callable[[memoryview, Any], None]) -> bool:
        """One receive call; `take(datagram, source)` for each. False: nothing there.

        The view given to `take` is valid only during the call.
        """
        view = self._view
        try:
            if not self.coalesce:
                size, address = self.socket.recvfrom_into(view)
                self.received += size
                take(view[:size], address)
                return True
            size, ancillary, _, address = self.socket.recvmsg_into((view,), _ANCILLARY)
        except BlockingIOError:
            return False
        except OSError:
            return True  # an ICMP error of an earlier send: nothing to do with this datagram
        self.received += size
        segment = size
        if ancillary:
            try:
                segment = _GRO_SIZE.unpack(ancillary[0][2])[0]
            except struct_error:
                segment = size
        if segment >= size:
            take(view[:size], address)
            return True
        for start in range(0, size, segment):
            take(view[start : min(start + segment, size)], address)
        return True

    def more(self) -> bool:
        """Whether something more to receive is there; not certain, but half as dear as to try."""
        return fcntl.ioctl(self._descriptor, termios.FIONREAD, _NOTHING) != _NOTHING

    def send(self, address: Any, datagrams: list[bytes], refused: Refused) -> None:
        """Send all, in few calls. Raises WouldBlock.

        A datagram the interface finds too large is told to `refused(address, size)`; other
        errors lose the datagram, as the network may.
        """
        at, count = 0, len(datagrams)
        segment = self.segment and count > 1
        while at < count:
            end = self._run(datagrams, at) if segment else at + 1
            try:
                if end - at == 1:
                    self.sent += self.socket.sendto(datagrams[at], address)
                else:
                    size = _SEGMENT.pack(len(datagrams[at]))
                    self.sent += self.socket.sendmsg(
                        datagrams[at:end],
                        ((socket.IPPROTO_UDP, UDP_SEGMENT, size),),
                        0,
                        address,
                    )
            except BlockingIOError:
                raise WouldBlock(at) from None
            except OSError as error:
                if end - at > 1:
                    segment = False  # one by one: this tells which size does not fit
                    if error.errno in _NO_OFFLOAD:
                        self.segment = False
                    continue
                if error.errno == errno.EMSGSIZE:
                    refused(address, len(datagrams[at]))
            at = end

    def _run(self, datagrams: list[bytes], at: int) -> int:
        """End of the run from `at` that one segmented call can send."""
        size = len(datagrams[at])
        end = at + 1
        limit = min(len(datagrams), at + min(SEGMENTS_LIMIT, max(SEGMENTED_BYTES_LIMIT // size, 1)))
        while end < limit:
            following = len(datagrams[end])
            if following > size:
                break
            end += 1
            if following < size:
                break
        return end

    def close(self) -> None:
        """Give the port back."""
        self.socket.close()
