"""Which port belongs to whom, and who holds one that is taken.

The gateway listens on base (RESP) and base + 1 (HTTP); node i on base + 10 (i + 1) (RESP),
+ 1 (HTTP), + 2 (peers, UDP), + 3 (admin), + 4 (gateway link).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distkv.config.units import Address
from distkv.local.errors import LocalError, WrongUse

HOST = "127.0.0.1"
STRIDE = 10
PORT_MAX = 65535


class NodePorts(NamedTuple):
    """Ports of one node."""

    resp: int
    http: int
    peers: int
    admin: int
    link: int


class Need(NamedTuple):
    """A port somebody needs."""

    port: int
    udp: bool
    who: str


class PortPlan(NamedTuple):
    """All ports of a cluster of `nodes` nodes from `base` on."""

    base: int
    nodes: int

    @property
    def gateway_resp(self) -> int:
        """Where redis-cli goes."""
        return self.base

    @property
    def gateway_http(self) -> int:
        """Where curl goes."""
        return self.base + 1

    def node(self, ordinal: int) -> NodePorts:
        """Ports of one node."""
        first = self.base + STRIDE * (ordinal + 1)
        return NodePorts(first, first + 1, first + 2, first + 3, first + 4)

    def peers(self) -> list[str]:
        """UDP address of every node, by ordinal."""
        return [str(Address(HOST, self.node(i).peers)) for i in range(self.nodes)]

    def links(self) -> list[str]:
        """Gateway link of every node, by ordinal."""
        return [str(Address(HOST, self.node(i).link)) for i in range(self.nodes)]

    def needs(self, first: int = 0) -> Iterator[Need]:
        """Every port, with who needs it; those of the nodes from `first` on, if that is given."""
        if not first:
            yield Need(self.gateway_resp, False, "the gateway (RESP)")
            yield Need(self.gateway_http, False, "the gateway (HTTP)")
        for ordinal in range(first, self.nodes):
            for name, port in self.node(ordinal)._asdict().items():
                yield Need(port, name == "peers", f"node {ordinal} ({name})")


def check_free(plan: PortPlan, first: int = 0) -> None:
    """Raise LocalError, naming port, who needs it and a base that is free, if one is taken.

    `first`: only what the nodes from that ordinal on need.
    """
    if not 1 <= plan.base <= PORT_MAX - STRIDE * (plan.nodes + 1):
        raise WrongUse(
            f"--port-base {plan.base}: ports up to base + {STRIDE * (plan.nodes + 1)} are used, "
            f"so it must be from 1 to {PORT_MAX - STRIDE * (plan.nodes + 1)}"
        )
    for need in plan.needs(first):
        error = _probe(need)
        if error is not None:
            why = _reason(need, error)
            kind = "UDP" if need.udp else "TCP"
            other = None if first else free_base(plan)
            remedy = f"; --port-base {other} is free" if other else ""
            raise LocalError(f"{kind} port {need.port}, which {need.who} needs, {why}{remedy}")


def free_base(plan: PortPlan) -> int | None:
    """Another base whose ports are all free."""
    for base in range(plan.base + 1000, PORT_MAX - STRIDE * (plan.nodes + 1), 1000):
        if all(_probe(need) is None for need in plan._replace(base=base).needs()):
            return base
    return None


def _probe(need: Need) -> OSError | None:
    """None if the port can be had."""
    kind = socket.SOCK_DGRAM if need.udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if not need.udp:
            # As servers do: a port whose last connections only linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, need.port))
            if not need.udp:
                probe.listen(1)
        except OSError as error:
            return error
    return None


def _reason(need: Need, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "may not be used by this user (those below 1024 mostly need root)"
    holder = holder_of(need)
    return f"is taken by {holder}" if holder else "is taken"


def holder_of(need: Need) -> str:
    """The process that holds the port, if it may be seen; else empty."""
    inodes = _inodes(need)
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for descriptor in (process / "fd").iterdir():
                if descriptor.readlink().name in inodes:
                    name = (process / "comm").read_text().strip()
                    return f"process {process.name} ({name})"
        except OSError:
            continue
    return ""


def _inodes(need: Need) -> set[str]:
    """Link targets of the sockets bound to that port (Linux, /proc/net)."""
    found = set()
    for table in ("udp", "udp6") if need.udp else ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            listening = need.udp or fields[3] == "0A"
            if listening and int(fields[1].rpartition(":")[2], 16) == need.port:
                found.add(f"socket:[{fields[9]}]")
    return found
