"""The error of a broken link."""

from __future__ import annotations

from distkv.errors import NoQuorum


class LinkLost(NoQuorum):
    """The node cannot be reached. `sent`: it may have got the request."""

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent
