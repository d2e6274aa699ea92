"""A user-space UDP proxy between two nodes that loses, duplicates and reorders datagrams."""

from __future__ import annotations

import asyncio
import random
import socket
from dataclasses import dataclass
from typing import Any


@dataclass
class Faults:
    """Probabilities per datagram; a late one waits up to `late` seconds."""

    loss: float
    duplicate: float
    reorder: float
    late: float = 0.01


class Proxy:
    """`left` and `right` are bound sockets; what arrives on one leaves by the other."""

    def __init__(
        self,
        left: socket.socket,
        right: socket.socket,
        left_node: Any,
        right_node: Any,
        faults: Faults,
        seed: int,
    ) -> None:
        self.faults = faults
        self.forwarded = self.lost = self.duplicated = self.delayed = 0
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._sockets = (left, right)
        for source, target, node in ((left, right, right_node), (right, left, left_node)):
            source.setblocking(False)
            self._loop.add_reader(source.fileno(), self._readable, source, target, node)

    def _readable(self, source: socket.socket, target: socket.socket, node: Any) -> None:
        for _ in range(64):
            try:
                datagram = source.recv(65_536)
            except BlockingIOError:
                return
            self._forward(datagram, target, node)

    def _forward(self, datagram: bytes, target: socket.socket, node: Any) -> None:
        faults, draw = self.faults, self._random.random
        if draw() < faults.loss:
            self.lost += 1
            return
        copies = 1
        if draw() < faults.duplicate:
            self.duplicated += 1
            copies = 2
        for _ in range(copies):
            self.forwarded += 1
            if draw() < faults.reorder:
                self.delayed += 1
                self._loop.call_later(draw() * faults.late, self._send, datagram, target, node)
            else:
                self._send(datagram, target, node)

    def _send(self, datagram: bytes, target: socket.socket, node: Any) -> None:
        try:
            target.sendto(datagram, node)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Stop, and give the sockets back."""
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())
            one.close()
