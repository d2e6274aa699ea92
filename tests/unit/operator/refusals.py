"""What the world in memory refuses."""

from __future__ import annotations


class Refused(Exception):
    """The API server's or a node's answer that is not 2xx."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
