"""Refusals of the API server."""

from __future__ import annotations


class ApiError(Exception):
    """`status`: HTTP; 0: nobody answered. `message` is the server's own."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{message} ({status} {reason})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_conflict(self) -> bool:
        """Somebody else changed it meanwhile (or it was there already)."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """There is no such object."""
        return self.status in (404, 410)

    @property
    def may_repeat(self) -> bool:
        """The same request can succeed in a moment."""
        return self.status in (0, 429, 500, 502, 503, 504)
