"""PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET and CLIENT."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import integer_argument, upper
from distkv.api.resp.encode import OK, RespError, bulk, integer, mapping
from distkv.api.resp.table import Command

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

REDIS_VERSION = "7.2.0"
"""The Redis whose behaviour clients may expect of the commands there are."""


def ping(_connection: RespConnection, arguments: list[Any]) -> bytes:
    """PING [message]."""
    if len(arguments) == 1:
        return encode.PONG
    if len(arguments) > 2:
        raise RespError("ERR wrong number of arguments for 'ping' command")
    return bulk(arguments[1])


def echo(_connection: RespConnection, arguments: list[Any]) -> bytes:
    """ECHO message."""
    return bulk(arguments[1])


def _check_password(connection: RespConnection, user: bytes, password: bytes) -> None:
    expected = connection.server.options.password
    if expected is None:
        return
    right = hmac.compare_digest(password, expected.encode())
    if not right or user != b"default":
        raise RespError("WRONGPASS invalid username-password pair or user is disabled.")
    connection.authenticated = True


def auth(connection: RespConnection, arguments: list[Any]) -> bytes:
    """AUTH [username] password."""
    if len(arguments) > 3:
        raise RespError(encode.SYNTAX_ERROR)
    if connection.server.options.password is None:
        raise RespError(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    user = arguments[1] if len(arguments) == 3 else b"default"
    _check_password(connection, user, arguments[-1])
    return OK


def hello(connection: RespConnection, arguments: list[Any]) -> bytes:
    """HELLO [protover [AUTH username password] [SETNAME clientname]]."""
    resp3 = connection.resp3
    name: bytes | None = None
    if len(arguments) > 1:
        if arguments[1] not in (b"2", b"3"):
            integer_argument(arguments[1], "ERR Protocol version is not an integer or out of range")
            raise RespError("NOPROTO unsupported protocol version")
        resp3 = arguments[1] == b"3"
    at = 2
    while at < len(arguments):
        option = upper(arguments[at])
        if option == b"AUTH" and at + 2 < len(arguments):
            _check_password(connection, arguments[at + 1], arguments[at + 2])
            at += 3
        elif option == b"SETNAME" and at + 1 < len(arguments):
            name = _client_name(arguments[at + 1])
            at += 2
        else:
            raise RespError(
                f"ERR Syntax error in HELLO option '{option.decode('utf-8', 'replace')}'"
            )
    if not connection.authenticated:
        raise RespError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the "
            "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
            "select the RESP protocol version at the same time"
        )
    if name is not None:
        connection.name = name
    connection.resp3 = resp3
    pairs = [
        (bulk(b"server"), bulk(b"redis")),
        (bulk(b"version"), bulk(REDIS_VERSION.encode())),
        (bulk(b"proto"), integer(3 if resp3 else 2)),
        (bulk(b"id"), integer(connection.identity)),
        (bulk(b"mode"), bulk(b"standalone")),
        (bulk(b"role"), bulk(b"master")),
        (bulk(b"modules"), encode.array([])),
    ]
    return mapping(pairs, resp3)


def select(_connection: RespConnection, arguments: list[Any]) -> bytes:
    """SELECT index: there is only database 0."""
    if integer_argument(arguments[1], "ERR invalid DB index") != 0:
        raise RespError("ERR DB index is out of range")
    return OK


def quit_(connection: RespConnection, _arguments: list[Any]) -> bytes:
    """QUIT."""
    connection.end()
    return OK


def reset(connection: RespConnection, _arguments: list[Any]) -> bytes:
    """RESET: the connection as it was when it was made."""
    connection.resp3 = False
    connection.name = b""
    connection.authenticated = connection.server.options.password is None
    return encode.simple("RESET")


def cross_protocol(connection: RespConnection, _arguments: list[Any]) -> bytes:
    """POST and Host: are a browser tricked into talking to this port; hang up, as Redis does."""
    connection.end()
    return encode.error("ERR this port speaks the Redis protocol, not HTTP; closing")


def _client_name(name: bytes) -> bytes:
    if any(not 33 <= char <= 126 for char in name):
        raise RespError("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def _line(connection: RespConnection) -> bytes:
    now = connection.store.now()
    text = (
        f"id={connection.identity} addr={connection.peer} laddr={connection.local} "
        f"name={connection.name.decode()} age={int(now - connection.opened)} "
        f"idle={int(now - connection.moved)} flags=N db=0 "
        f"cmd={connection.last_command or 'NULL'} user=default "
        f"resp={3 if connection.resp3 else 2} "
        f"lib-name={connection.library.get(b'LIB-NAME', b'').decode()} "
        f"lib-ver={connection.library.get(b'LIB-VER', b'').decode()}\n"
    )
    return text.encode()


def _set_info(connection: RespConnection, arguments: list[Any]) -> bytes:
    option = upper(arguments[2])
    if option not in (b"LIB-NAME", b"LIB-VER"):
        raise RespError(f"ERR Unrecognized option '{option.decode('utf-8', 'replace')}'")
    connection.library[option] = _client_name(arguments[3])
    return OK


def _on_off(_connection: RespConnection, arguments: list[Any]) -> bytes:
    if upper(arguments[2]) not in (b"ON", b"OFF"):
        raise RespError(encode.SYNTAX_ERROR)
    return OK


def _set_name(connection: RespConnection, arguments: list[Any]) -> bytes:
    connection.name = _client_name(arguments[2])
    return OK


def _get_name(connection: RespConnection, _arguments: list[Any]) -> bytes:
    return bulk(connection.name) if connection.name else encode.nil(connection.resp3)


def _list(connection: RespConnection, arguments: list[Any]) -> bytes:
    """CLIENT LIST [TYPE NORMAL | MASTER | REPLICA | PUBSUB] [ID id ...]: all here are NORMAL."""
    clients = connection.server.clients()
    option = upper(arguments[2]) if len(arguments) > 3 else b""
    if option == b"TYPE" and len(arguments) == 4:
        kind = upper(arguments[3])
        if kind not in (b"NORMAL", b"MASTER", b"REPLICA", b"SLAVE", b"PUBSUB"):
            raise RespError(f"ERR Unknown client type '{kind.decode('utf-8', 'replace')}'")
        clients = clients if kind == b"NORMAL" else []
    elif option == b"ID":
        wanted = [integer_argument(argument, "ERR Invalid client ID") for argument in arguments[3:]]
        clients = [client for client in clients if client.identity in wanted]
    elif len(arguments) > 2:
        raise RespError(encode.SYNTAX_ERROR)
    return bulk(b"".join(_line(client) for client in clients))


_SUBCOMMANDS: dict[bytes, tuple[int, Callable[[RespConnection, list[Any]], bytes]]] = {
    b"ID": (2, lambda connection, _: integer(connection.identity)),
    b"INFO": (2, lambda connection, _: bulk(_line(connection))),
    b"LIST": (-2, _list),
    b"GETNAME": (2, _get_name),
    b"SETNAME": (3, _set_name),
    b"SETINFO": (4, _set_info),
    b"NO-EVICT": (3, _on_off),
    b"NO-TOUCH": (3, _on_off),
}


def client(connection: RespConnection, arguments: list[Any]) -> bytes:
    """CLIENT ID | INFO | LIST | GETNAME | SETNAME | SETINFO | NO-EVICT | NO-TOUCH | HELP."""
    name = upper(arguments[1])
    if name == b"HELP":
        return help_of(client)
    if name not in _SUBCOMMANDS:
        raise unknown_subcommand(arguments)
    arity, handler = _SUBCOMMANDS[name]
    if len(arguments) != arity if arity > 0 else len(arguments) < -arity:
        raise RespError(
            f"ERR wrong number of arguments for 'client|{name.decode().lower()}' command"
        )
    return handler(connection, arguments)


def help_of(handler: Callable[..., bytes]) -> bytes:
    """What HELP answers: the subcommands that the handler's first line names, one in a line."""
    usage = (handler.__doc__ or "").partition("\n")[0].partition(":")[0].rstrip(".")
    name, _, rest = usage.partition(" ")
    lines = [f"{name} <subcommand> [<arg> [value] ...]. Subcommands are:"]
    lines += [part.strip() for part in rest.strip("[]").split("|")]
    return encode.array([encode.simple(line) for line in lines])


def unknown_subcommand(arguments: list[Any]) -> RespError:
    """Redis's text for it."""
    name = arguments[0].decode("utf-8", "replace")
    shown = arguments[1][:128].decode("utf-8", "replace")
    return RespError(f"ERR unknown subcommand '{shown}'. Try {name.upper()} HELP.")


COMMANDS = (
    Command("ping", -1, ping, flags=("fast",)),
    Command("echo", 2, echo, flags=("fast",)),
    Command("auth", -2, auth, before_auth=True, flags=("noscript", "fast", "no_auth")),
    Command("hello", -1, hello, before_auth=True, flags=("noscript", "fast", "no_auth")),
    Command("select", 2, select, flags=("fast",)),
    Command("quit", -1, quit_, before_auth=True, flags=("fast", "no_auth")),
    Command("reset", 1, reset, before_auth=True, flags=("noscript", "fast", "no_auth")),
    Command("client", -2, client, flags=("noscript",)),
    Command("post", -1, cross_protocol, before_auth=True),
    Command("host:", -1, cross_protocol, before_auth=True),
)
