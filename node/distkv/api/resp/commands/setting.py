"""Setting and removing values: SET and its relatives, GETDEL, GETEX, DEL, MSET.

Extensions (of this store, not Redis): `SET key value IFVERSION n` sets only if the key has
that version (0: only if it is absent), `DELEX key IFVERSION n` removes under the same
condition, and `DISTKV.VERSION key` tells the version, nil if the key is absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import Call, flow, integer_argument, upper, write
from distkv.api.resp.commands.times import TIME_OPTIONS, expiry_argument
from distkv.api.resp.encode import OK, ONE, SYNTAX_ERROR, ZERO, Reply, RespError, integer
from distkv.api.resp.table import Awaited, Command, Scope
from distkv.errors import ConditionFailed
from distkv.operations import (
    ANYTHING,
    NEVER,
    Check,
    Condition,
    Delete,
    Expire,
    Expiry,
    Get,
    Must,
    Put,
    Stat,
    Value,
    Write,
)

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

_ABSENT = Condition(Must.BE_ABSENT)
_PRESENT = Condition(Must.BE_PRESENT)


def version_condition(argument: bytes) -> Condition:
    """IFVERSION n."""
    version = integer_argument(argument)
    return Condition(Must.HAVE_VERSION, version) if version else _ABSENT


def set_(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """SET key value [NX | XX | IFVERSION n] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]."""
    if len(arguments) == 3:
        operation = Write((Put(arguments[1], arguments[2]),))
        return Awaited(connection.store.execute(operation, connection.deadline), encode.encode_ok)
    return _set_with_options(connection, arguments)


def _set_with_options(connection: RespConnection, arguments: list[Any]) -> Awaited:
    expiry, condition, previous = NEVER, ANYTHING, False
    at = 3
    while at < len(arguments):
        option = upper(arguments[at])
        at += 1
        if option in (b"NX", b"XX") and condition is ANYTHING:
            condition = _ABSENT if option == b"NX" else _PRESENT
        elif option == b"IFVERSION" and condition is ANYTHING and at < len(arguments):
            condition = version_condition(arguments[at])
            at += 1
        elif option == b"GET":
            previous = True
        elif option == b"KEEPTTL" and expiry is NEVER:
            expiry = Expiry(keep=True)
        elif option in TIME_OPTIONS and expiry is NEVER and at < len(arguments):
            expiry = expiry_argument(option, arguments[at], "set")
            at += 1
        else:
            raise RespError(SYNTAX_ERROR)
    put = Put(arguments[1], arguments[2], expiry, condition, previous)
    if condition is ANYTHING:
        encoder = encode.encode_previous if previous else encode.encode_ok
        return connection.execute(Write((put,)), encoder)
    return flow(_set_if if not previous else _set_if_get)(connection, [put])


async def _set_if(call: Call, arguments: list[Any]) -> Reply:
    try:
        await write(call, arguments[0])
    except ConditionFailed:
        return encode.nil(call.resp3)
    return OK


async def _set_if_get(call: Call, arguments: list[Any]) -> Reply:
    """With GET the reply is the old value; refused, it is the value that was in the way."""
    put: Put = arguments[0]
    while True:
        try:
            return encode.value((await write(call, put))[0].previous, call.resp3)
        except ConditionFailed:
            found = await call.store.execute(Get(put.key), call.deadline)
        if found is not None or put.condition.must is not Must.BE_ABSENT:
            return encode.value(found, call.resp3)
        if not isinstance(put.value, bytes):  # it went by; there is nothing to try again with
            raise RespError("TRYAGAIN what was in the way is gone; nothing was set")


def _encode_set(_result: Any, _resp3: bool) -> Reply:
    return ONE


async def setnx(call: Call, arguments: list[Any]) -> Reply:
    """SETNX key value."""
    try:
        await write(call, Put(arguments[1], arguments[2], NEVER, _ABSENT))
    except ConditionFailed:
        return ZERO
    return ONE


def setex(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """SETEX key seconds value."""
    expiry = expiry_argument(b"EX", arguments[2], "setex")
    return connection.execute(Write((Put(arguments[1], arguments[3], expiry),)), encode.encode_ok)


def psetex(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """PSETEX key milliseconds value."""
    expiry = expiry_argument(b"PX", arguments[2], "psetex")
    return connection.execute(Write((Put(arguments[1], arguments[3], expiry),)), encode.encode_ok)


def getset(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """GETSET key value."""
    operation = Write((Put(arguments[1], arguments[2], previous=True),))
    return connection.execute(operation, encode.encode_previous)


def getdel(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """GETDEL key."""
    return connection.execute(Write((Delete(arguments[1], previous=True),)), encode.encode_previous)


def getex(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]."""
    if len(arguments) == 2:
        return connection.execute(Get(arguments[1]), encode.value)
    option = upper(arguments[2])
    if option == b"PERSIST" and len(arguments) == 3:
        expiry = NEVER
    elif option in TIME_OPTIONS and len(arguments) == 4:
        expiry = expiry_argument(option, arguments[3], "getex")
    else:
        raise RespError(SYNTAX_ERROR)
    return flow(_getex)(connection, [arguments[1], expiry])


async def _getex(call: Call, arguments: list[Any]) -> Reply:
    """The value, and its new expiry if the version is still the one read.

    What is being streamed is read on from its shards, which stay for a while even if the new
    expiry is over at once.
    """
    key, expiry = arguments
    while True:
        found: Any = await call.store.execute(Get(key), call.deadline)
        if found is None:
            return encode.nil(call.resp3)
        unchanged = Check(key, Condition(Must.HAVE_VERSION, found.meta.version))
        try:
            await write(call, unchanged, Expire(key, expiry))
        except ConditionFailed:
            _let_go(found)
            continue
        except BaseException:
            _let_go(found)
            raise
        return encode.value(found, call.resp3)


def _let_go(value: Value) -> None:
    if not isinstance(value.data, bytes):
        value.data.close()


def _encode_existed(results: Any, _resp3: bool) -> Reply:
    return integer(sum(1 for written in results if written.existed))


def delete(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """DEL key ...: all or none."""
    mutations = tuple([Delete(key) for key in arguments[1:]])
    return connection.execute(Write(mutations), _encode_existed)


async def delex(call: Call, arguments: list[Any]) -> Reply:
    """DELEX key [IFVERSION n]."""
    condition = ANYTHING
    if len(arguments) == 4 and upper(arguments[2]) == b"IFVERSION":
        condition = version_condition(arguments[3])
    elif len(arguments) != 2:
        raise RespError(SYNTAX_ERROR)
    try:
        results = await write(call, Delete(arguments[1], condition))
    except ConditionFailed:
        return ZERO
    return integer(int(results[0].existed))


def _puts(arguments: list[Any], condition: Condition) -> tuple[Put, ...]:
    if len(arguments) % 2 == 0:
        name = arguments[0].decode("utf-8", "replace").lower()
        raise RespError(f"ERR wrong number of arguments for '{name}' command")
    pairs = zip(arguments[1::2], arguments[2::2], strict=True)
    return tuple([Put(key, value, NEVER, condition) for key, value in pairs])


def mset(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """MSET key value ...: all or none."""
    return connection.execute(Write(_puts(arguments, ANYTHING)), encode.encode_ok)


def msetnx(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """MSETNX key value ...: only if none of the keys is there."""
    # A key named twice must not be in its own way: only its first put is conditional.
    seen: set[bytes] = set()
    puts: list[Put] = []
    for put in _puts(arguments, _ABSENT):
        puts.append(put if put.key not in seen else put._replace(condition=ANYTHING))
        seen.add(put.key)
    return flow(_msetnx)(connection, puts)


async def _msetnx(call: Call, puts: list[Any]) -> Reply:
    try:
        await write(call, *puts)
    except ConditionFailed:
        return ZERO
    return ONE


def _encode_version(result: Any, resp3: bool) -> Reply:
    return encode.nil(resp3) if result[0] is None else integer(result[0].version)


def version(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """DISTKV.VERSION key: for IFVERSION; nil if the key is absent."""
    return connection.execute(Stat((arguments[1],)), _encode_version)


def _at(position: int) -> Any:
    return lambda index: index == position


_KEY = (1, 1, 1)
_WRITES = Scope.WRITES
_OOM = ("denyoom",)

COMMANDS = (
    Command("set", -3, set_, _WRITES, _KEY, _at(2), flags=_OOM),
    Command("setnx", 3, flow(setnx), _WRITES, _KEY, _at(2), flags=_OOM),
    Command("setex", 4, setex, _WRITES, _KEY, _at(3), flags=_OOM),
    Command("psetex", 4, psetex, _WRITES, _KEY, _at(3), flags=_OOM),
    Command("getset", 3, getset, _WRITES, _KEY, _at(2), flags=_OOM),
    Command("getdel", 2, getdel, _WRITES, _KEY),
    Command("getex", -2, getex, _WRITES, _KEY),
    Command("del", -2, delete, _WRITES, (1, -1, 1)),
    Command("unlink", -2, delete, _WRITES, (1, -1, 1)),
    Command("delex", -2, flow(delex), _WRITES, _KEY),
    Command("mset", -3, mset, _WRITES, (1, -1, 2), lambda i: i % 2 == 0, flags=_OOM),
    Command("msetnx", -3, msetnx, _WRITES, (1, -1, 2), lambda i: i % 2 == 0, flags=_OOM),
    Command("distkv.version", 2, version, Scope.READS, _KEY),
)
