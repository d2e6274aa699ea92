"""What a command is: one row per command, filled by the modules in `commands/`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from distkv.api.resp.encode import Reply
from distkv.kernel import Future

if TYPE_CHECKING:
    from distkv.api.resp.connection import RespConnection

Arguments = list[Any]
"""bytes, or Upload where the command's `uploads` says so; the name of the command first."""

Encoder = Callable[[Any, bool], Reply]
"""(result, whether the client speaks RESP3) -> reply."""


class Awaited(NamedTuple):
    """An answer to come. `encode` turns the future's result into the reply."""

    future: Future[Any]
    encode: Encoder


Handler = Callable[["RespConnection", Arguments], "bytes | Awaited"]


class Scope(Enum):
    """What a command touches; decides which commands of a pipeline may overlap."""

    NOTHING = "nothing"
    READS = "reads"
    WRITES = "writes"
    READS_ALL = "reads all"
    WRITES_ALL = "writes all"


class Command(NamedTuple):
    """`arity` as Redis counts it: the name included, negative for "at least".

    `keys`: (first, last, step) as in COMMAND INFO, last -1 for "to the end".
    `uploads`: whether the argument at this position may be an `Upload`.
    `before_auth`: allowed without a password.
    """

    name: str
    arity: int
    handler: Handler
    scope: Scope = Scope.NOTHING
    keys: tuple[int, int, int] = (0, 0, 0)
    uploads: Callable[[int], bool] | None = None
    before_auth: bool = False
    flags: tuple[str, ...] = ()


def keys_of(command: Command, arguments: Arguments) -> Arguments:
    """The keys among the arguments."""
    first, last, step = command.keys
    if first == 0:
        return []
    return arguments[first : last + 1 if last >= 0 else len(arguments) + last + 1 : step]


def accepts(command: Command, count: int) -> bool:
    """Whether `count` arguments (name included) are right."""
    return count == command.arity if command.arity >= 0 else count >= -command.arity
