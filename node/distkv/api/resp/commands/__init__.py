"""Handlers of Redis commands, one module per family."""

from __future__ import annotations

from distkv.api.resp.commands import (
    connection,
    expiry,
    introspection,
    keys,
    numbers,
    setting,
    strings,
)
from distkv.api.resp.table import Command

TABLE: tuple[Command, ...] = (
    *connection.COMMANDS,
    *introspection.COMMANDS,
    *strings.COMMANDS,
    *setting.COMMANDS,
    *numbers.COMMANDS,
    *expiry.COMMANDS,
    *keys.COMMANDS,
)
"""Every command of the door."""
