"""Keys as such: EXISTS, TYPE, SCAN, KEYS, DBSIZE, FLUSHDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distkv.api.resp import encode
from distkv.api.resp.commands.common import Call, flow, integer_argument, upper
from distkv.api.resp.encode import OK, SYNTAX_ERROR, Reply, RespError, array, bulk, integer, simple
from distkv.api.resp.glob import compile_glob, literal_prefix
from distkv.api.resp.table import Awaited, Command, Scope
from distkv.operations import Count, Flush, Page, Scan, Stat, Write

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

_PAGE = 1000


def _encode_present(result: Any, _resp3: bool) -> Reply:
    return integer(sum(1 for meta in result if meta is not None))


def exists(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """EXISTS key ...: how many are there; one named twice counts twice."""
    return connection.execute(Stat(tuple(arguments[1:])), _encode_present)


def _encode_type(result: Any, _resp3: bool) -> Reply:
    return simple("none" if result[0] is None else "string")


def type_(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """TYPE key: string, or none."""
    return connection.execute(Stat((arguments[1],)), _encode_type)


def dbsize(connection: RespConnection, _arguments: list[Any]) -> Awaited:
    """DBSIZE: number of keys."""
    return connection.execute(Count(), encode.encode_integer)


def flush(connection: RespConnection, arguments: list[Any]) -> Awaited:
    """FLUSHDB [ASYNC | SYNC]: remove every key."""
    if len(arguments) > 2 or (
        len(arguments) == 2 and upper(arguments[1]) not in (b"ASYNC", b"SYNC")
    ):
        raise RespError(SYNTAX_ERROR)
    return connection.execute(Write((Flush(),)), encode.constant(OK))


async def _page(call: Call, start: bytes, prefix: bytes, limit: int) -> Page:
    operation = Scan(start=start, prefix=prefix, limit=limit)
    page: Any = await call.store.execute(operation, call.deadline)
    found: Page = page
    return found


async def scan(call: Call, arguments: list[Any]) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]: in order of the keys."""
    cursor = arguments[1]
    if not cursor.isdigit() or len(cursor) > 20:
        raise RespError("ERR invalid cursor")
    start = call.cursors.place(int(cursor)) if int(cursor) else b""
    if start is None:
        raise RespError(
            "ERR unknown cursor: it was given by another node, before a restart, or too long "
            f"ago ({call.limits.cursors_max} are remembered); start again with 0"
        )
    pattern, count, wanted = b"*", 10, b"string"
    for at in range(2, len(arguments), 2):
        option = upper(arguments[at])
        if at + 1 == len(arguments) or option not in (b"MATCH", b"COUNT", b"TYPE"):
            raise RespError(SYNTAX_ERROR)
        if option == b"MATCH":
            pattern = arguments[at + 1]
        elif option == b"TYPE":
            wanted = arguments[at + 1].lower()
        else:
            count = integer_argument(arguments[at + 1])
            if count < 1:
                raise RespError(SYNTAX_ERROR)
    count = min(count, call.limits.scan_count_max)
    page = await _page(call, start, literal_prefix(pattern), count)
    glob = compile_glob(pattern)
    keys = [bulk(key) for key, _ in page.keys if glob.matches(key)] if wanted == b"string" else []
    following = page.next_start
    after = 0 if following is None else call.cursors.remember(following)
    return array([bulk(b"%d" % after), array(keys)])


async def keys(call: Call, arguments: list[Any]) -> Reply:
    """KEYS pattern: all at once, up to `keys_listed_max`; SCAN has no such limit."""
    glob, prefix = compile_glob(arguments[1]), literal_prefix(arguments[1])
    limit = call.limits.keys_listed_max
    found: list[bytes] = []
    start: bytes | None = b""
    while start is not None:
        page = await _page(call, start, prefix, _PAGE)
        found += [bulk(key) for key, _ in page.keys if glob.matches(key)]
        if len(found) > limit:
            raise RespError(
                f"TOOLARGE more keys match than limit keys_listed_max ({limit}): use SCAN"
            )
        start = page.next_start
    return array(found)


COMMANDS = (
    Command("exists", -2, exists, Scope.READS, (1, -1, 1), flags=("fast",)),
    Command("type", 2, type_, Scope.READS, (1, 1, 1), flags=("fast",)),
    Command("dbsize", 1, dbsize, Scope.READS_ALL, flags=("fast",)),
    Command("scan", -2, flow(scan), Scope.READS_ALL),
    Command("keys", 2, flow(keys), Scope.READS_ALL),
    Command("flushdb", -1, flush, Scope.WRITES_ALL),
    Command("flushall", -1, flush, Scope.WRITES_ALL),
)
