"""The EXPIRE and TTL families."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import Call, flow, upper, write
from distkv.api.resp.commands.times import expiry
from distkv.api.resp.encode import ZERO, Reply, RespError, integer
from distkv.api.resp.table import Awaited, Command, Handler, Scope
from distkv.errors import ConditionFailed
from distkv.operations import (
    NEVER,
    Check,
    Condition,
    Expire,
    ExpireMode,
    Meta,
    Must,
    Stat,
    Write,
)

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

_MODES = {
    frozenset[bytes](): ExpireMode.ALWAYS,
    frozenset((b"NX",)): ExpireMode.ONLY_WITHOUT,
    frozenset((b"XX",)): ExpireMode.ONLY_WITH,
    frozenset((b"GT",)): ExpireMode.ONLY_LATER,
    frozenset((b"LT",)): ExpireMode.ONLY_SOONER,
    # A key without expiry counts as one that goes never, so nothing is later: GT implies XX.
    frozenset((b"XX", b"GT")): ExpireMode.ONLY_LATER,
}
_SOONER_IF_ANY = frozenset((b"XX", b"LT"))
"""No mode of its own: the log would have to be read by older nodes as well."""


def _mode(options: list[bytes]) -> ExpireMode | None:
    """None: XX and LT."""
    chosen = frozenset(upper(option) for option in options)
    for option in options:
        if upper(option) not in (b"NX", b"XX", b"GT", b"LT"):
            raise RespError(f"ERR Unsupported option {option.decode('utf-8', 'replace')}")
    mode = _MODES.get(chosen)
    if mode is not None or chosen == _SOONER_IF_ANY:
        return mode
    if b"NX" in chosen:
        raise RespError("ERR NX and XX, GT or LT options at the same time are not compatible")
    raise RespError("ERR GT and LT options at the same time are not compatible")


def _expire(option: bytes, name: str, text: str) -> Handler:
    def handler(connection: RespConnection, arguments: list[Any]) -> Awaited:
        when = expiry(option, arguments[2], name)
        mode = _mode(arguments[3:])
        if mode is None:
            sooner = Expire(arguments[1], when, ExpireMode.ONLY_SOONER)
            return flow(_sooner_if_any)(connection, [sooner])
        mutation = Expire(arguments[1], when, mode)
        return connection.execute(Write((mutation,)), encode.encode_first_integer)

    handler.__doc__ = f"{name.upper()} key {text} [NX | XX | GT | LT]."
    return handler


async def _sooner_if_any(call: Call, arguments: list[Any]) -> Reply:
    """Only a key that has a time gets an earlier one."""
    sooner: Expire = arguments[0]
    while True:
        metas: Any = await call.store.execute(Stat((sooner.key,)), call.deadline)
        found: Meta | None = metas[0]
        if found is None or found.expires_ms is None:
            return ZERO
        unchanged = Check(sooner.key, Condition(Must.HAVE_VERSION, found.version))
        try:
            return integer(int((await write(call, unchanged, sooner))[1]))
        except ConditionFailed:
            continue


def persist(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """PERSIST key."""
    return connection.execute(Write((Expire(arguments[1], NEVER),)), encode.encode_first_integer)


def _ttl(unit_ms: int, relative: bool, text: str) -> Handler:
    def encoder(result: Any, _resp3: bool) -> Reply:
        meta: Meta | None = result[0]
        if meta is None:
            return integer(-2)
        if meta.expires_ms is None:
            return integer(-1)
        left = meta.expires_ms
        if relative:
            # The clock of the log decides when it goes; this one only says about when.
            left = max(left - time.time_ns() // 1_000_000, 0)
        return integer((left + unit_ms // 2) // unit_ms)

    def handler(connection: RespConnection, arguments: list[Any]) -> Awaited:
        return connection.execute(Stat((arguments[1],)), encoder)

    handler.__doc__ = text
    return handler


_KEY = (1, 1, 1)


def _row(name: str, option: bytes, text: str) -> Command:
    return Command(name, -3, _expire(option, name, text), Scope.WRITES, _KEY, flags=("fast",))


def _ttl_row(name: str, unit_ms: int, relative: bool, text: str) -> Command:
    return Command(name, 2, _ttl(unit_ms, relative, text), Scope.READS, _KEY, flags=("fast",))


COMMANDS = (
    _row("expire", b"EX", "seconds"),
    _row("pexpire", b"PX", "milliseconds"),
    _row("expireat", b"EXAT", "unix-time-seconds"),
    _row("pexpireat", b"PXAT", "unix-time-milliseconds"),
    Command("persist", 2, persist, Scope.WRITES, _KEY, flags=("fast",)),
    _ttl_row("ttl", 1000, True, "TTL key: seconds left, -1 never, -2 no such key."),
    _ttl_row("pttl", 1, True, "PTTL key: milliseconds left."),
    _ttl_row("expiretime", 1000, False, "EXPIRETIME key: as a Unix time in seconds."),
    _ttl_row("pexpiretime", 1, False, "PEXPIRETIME key: as a Unix time in milliseconds."),
)
