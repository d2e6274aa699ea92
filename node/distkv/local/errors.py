"""What laptop mode refuses, in words for the person at the keyboard."""

from __future__ import annotations


class LocalError(Exception):
    """The command cannot be done; the message says why and what to do."""


class NotRunning(LocalError):
    """No supervisor owns the directory now."""
