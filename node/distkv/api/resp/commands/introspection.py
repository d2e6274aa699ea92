"""COMMAND, INFO, CONFIG, TIME."""

from __future__ import annotations

import fnmatch
import os
import time
from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import upper
from distkv.api.resp.commands.connection import REDIS_VERSION, help_of, unknown_subcommand
from distkv.api.resp.encode import OK, RespError, array, bulk, integer, mapping
from distkv.api.resp.table import Command, Scope
from distkv.version import version

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection


def _flags(command: Command) -> list[bytes]:
    flags = list(command.flags)
    if command.scope in (Scope.READS, Scope.READS_ALL):
        flags.append("readonly")
    elif command.scope in (Scope.WRITES, Scope.WRITES_ALL):
        flags.append("write")
    return [encode.simple(flag) for flag in flags]


def _row(command: Command) -> bytes:
    first, last, step = command.keys
    row = [
        bulk(command.name.encode()),
        integer(command.arity),
        array(_flags(command)),
        integer(first),
        integer(last),
        integer(step),
        *([array([])] * 4),
    ]
    return array(row)


def command(connection: RespConnection, arguments: list[Any]) -> bytes:
    """COMMAND [COUNT | LIST [FILTERBY kind value] | INFO [name ...] | DOCS [name ...] | HELP]."""
    commands = connection.server.commands
    if len(arguments) == 1:
        return array([_row(row) for row in commands.values()])
    name = upper(arguments[1])
    wanted = [argument.decode("utf-8", "replace").lower() for argument in arguments[2:]]
    if name == b"COUNT":
        return integer(len(commands))
    if name == b"HELP":
        return help_of(command)
    if name == b"LIST":
        return array([bulk(known.encode()) for known in _filtered(list(commands), arguments[2:])])
    if name == b"INFO":
        nil = b"*-1\r\n" if not connection.resp3 else encode.NIL3
        return array(
            [_row(commands[n]) if n in commands else nil for n in wanted or list(commands)]
        )
    if name == b"DOCS":
        return mapping(
            [
                (bulk(n.encode()), _docs(commands[n], connection.resp3))
                for n in wanted or list(commands)
                if n in commands
            ],
            connection.resp3,
        )
    raise unknown_subcommand(arguments)


def _filtered(names: list[str], options: list[Any]) -> list[str]:
    """[FILTERBY MODULE name | ACLCAT category | PATTERN pattern]: no module has any here."""
    if not options:
        return names
    if len(options) != 3 or upper(options[0]) != b"FILTERBY":
        raise RespError(encode.SYNTAX_ERROR)
    kind, value = upper(options[1]), options[2].decode("utf-8", "replace").lower()
    if kind == b"PATTERN":
        return [name for name in names if fnmatch.fnmatchcase(name, value)]
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        raise RespError("ERR this store has no ACL categories: use FILTERBY PATTERN")
    raise RespError(encode.SYNTAX_ERROR)


def _docs(row: Command, resp3: bool) -> bytes:
    summary = (row.handler.__doc__ or row.name).split("\n", maxsplit=1)[0]
    pairs = [
        (bulk(b"summary"), bulk(summary.encode())),
        (bulk(b"since"), bulk(b"1.0.0")),
        (bulk(b"group"), bulk(b"string")),
    ]
    return mapping(pairs, resp3)


def _flatten(prefix: str, value: object, lines: list[str]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}_{key}" if prefix else str(key), item, lines)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _flatten(f"{prefix}{number}", item, lines)
    else:
        shown = int(value) if isinstance(value, bool) else value
        lines.append(f"{prefix}:{shown}".replace("\r", " ").replace("\n", " "))


def _sections(connection: RespConnection) -> dict[str, list[str]]:
    server = connection.server
    metrics = server.metrics
    uptime = int(server.store.now() - server.started)
    cluster: list[str] = []
    # Clients make one dictionary of all sections, and "role" there is whether it takes writes.
    status = server.store.status()
    named = {"consensus_role" if name == "role" else name: status[name] for name in status}
    _flatten("", named, cluster)
    keys = status.get("keys")
    return {
        "server": [
            f"redis_version:{REDIS_VERSION}",
            f"distkv_version:{version()}",
            "redis_mode:standalone",
            f"process_id:{os.getpid()}",
            f"tcp_port:{server.port}",
            f"uptime_in_seconds:{uptime}",
            f"uptime_in_days:{uptime // 86400}",
        ],
        "clients": [
            f"connected_clients:{metrics.connections}",
            f"maxclients:{connection.limits.connections_max}",
        ],
        "memory": [
            f"memory_in_flight:{connection.budget.used}",
            f"memory_in_flight_max:{connection.budget.limit}",
        ],
        "persistence": ["loading:0"],
        "stats": [
            f"total_connections_received:{metrics.accepted}",
            f"rejected_connections:{metrics.refused}",
            f"total_commands_processed:{sum(s.count for s in metrics.series.values())}",
            f"total_net_input_bytes:{metrics.bytes_in}",
            f"total_net_output_bytes:{metrics.bytes_out}",
        ],
        "replication": ["role:master", "connected_slaves:0"],
        "distkv": cluster,
        "keyspace": [f"db0:keys={keys},expires=0,avg_ttl=0"]
        if isinstance(keys, int) and keys
        else [],
    }


def info(connection: RespConnection, arguments: list[Any]) -> bytes:
    """INFO [section ...]: Redis's fields where they have a meaning, and section distkv."""
    sections = _sections(connection)
    wanted = [argument.decode("utf-8", "replace").lower() for argument in arguments[1:]]
    if not wanted or set(wanted) & {"all", "default", "everything"}:
        wanted = list(sections)
    blocks = [
        f"# {name.capitalize()}\r\n" + "".join(f"{line}\r\n" for line in sections[name])
        for name in sections
        if name in wanted
    ]
    return bulk("\r\n".join(blocks).encode("utf-8", "replace"))


def _configuration(connection: RespConnection) -> dict[str, str]:
    limits = connection.limits
    return {
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxclients": str(limits.connections_max),
        "maxmemory": str(limits.memory_in_flight_max),
        "proto-max-bulk-len": str(limits.value_bytes_max),
        "databases": "1",
        "timeout": "0",
    }


def config(connection: RespConnection, arguments: list[Any]) -> bytes:
    """CONFIG GET pattern ... | RESETSTAT | HELP: what Redis clients look for; nothing is set so."""
    name = upper(arguments[1])
    if name == b"HELP":
        return help_of(config)
    if name == b"GET" and len(arguments) > 2:
        patterns = [argument.decode("utf-8", "replace").lower() for argument in arguments[2:]]
        found = {
            key: value
            for key, value in _configuration(connection).items()
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
        }
        pairs = [(bulk(key.encode()), bulk(value.encode())) for key, value in found.items()]
        return mapping(pairs, connection.resp3)
    if name == b"RESETSTAT":
        return OK
    if name == b"SET":
        raise RespError("ERR configuration is read at the start; see 'distkv config explain'")
    raise unknown_subcommand(arguments)


def time_(_connection: RespConnection, _arguments: list[Any]) -> bytes:
    """TIME: seconds and microseconds of this node's clock."""
    micros = time.time_ns() // 1000
    return array([bulk(b"%d" % (micros // 1_000_000)), bulk(b"%d" % (micros % 1_000_000))])


COMMANDS = (
    Command("command", -1, command),
    Command("info", -1, info),
    Command("config", -2, config, flags=("admin",)),
    Command("time", 1, time_, flags=("fast",)),
)
