"""What laptop mode refuses, in words for the person at the keyboard."""

from __future__ import annotations


class LocalError(Exception):
    """The command cannot be done; the message says why and what to do."""


class WrongUse(LocalError):
    """What was asked for can never be done; the message names the option."""


class NotRunning(LocalError):
    """No supervisor owns the directory now."""
