"""What a gateway is told about its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkv.api.options import MIB, Limits


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Times in seconds, sizes in bytes."""

    nodes: tuple[tuple[str, int], ...]
    """(host, port) of the nodes' gateway links."""
    name: str = "gateway"
    token: str = ""
    probe: float = 0.5
    """Between two pings of a node."""
    in_flight_max: int = 4096
    """Requests under way at one node."""
    retained_max: int = 64 * MIB
    """Values kept until their put is answered, so that it can be sent to another node."""
    session_renewal: float = 600.0
    """An idle session is used this often, well before the cluster forgets it."""
    grace: float = 0.25
    """How much longer than its deadline a node's answer is waited for."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises ValueError naming the field."""
        if not self.nodes:
            raise ValueError("gateway.nodes is empty: name at least one node")
        if self.retained_max < 0 or self.in_flight_max < 1:
            raise ValueError("gateway.retained_max and in_flight_max must not be negative")
