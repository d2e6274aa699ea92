"""What is wrong with a command before it is executed, in Redis's own words."""

from __future__ import annotations

from distkv.api.large import LargeValue
from distkv.api.metrics import Series
from distkv.api.resp import encode
from distkv.api.resp.parser import Argument
from distkv.api.resp.table import Command, accepts, keys_of


def refuse(
    bound: tuple[Command, Series] | None,
    item: list[Argument],
    authenticated: bool,
    key_bytes_max: int,
) -> bytes | None:
    """The error reply; None: nothing is wrong."""
    if bound is None:
        return unknown_command(item)
    command = bound[0]
    if not accepts(command, len(item)):
        return encode.error(f"ERR wrong number of arguments for '{command.name}' command")
    if not (authenticated or command.before_auth):
        return encode.error("NOAUTH Authentication required.")
    for argument in item:
        if type(argument) is LargeValue:
            return _refuse_large(command, item, key_bytes_max)
    return None


def _refuse_large(command: Command, item: list[Argument], key_bytes_max: int) -> bytes | None:
    for key in keys_of(command, item):
        if type(key) is LargeValue:
            return encode.error(key_too_large(key.length or 0, key_bytes_max))
    for argument in item:
        if type(argument) is LargeValue and argument.refusal is not None:
            return encode.store_error(argument.refusal)
    return None


def key_too_large(length: int, limit: int) -> str:
    """Text of the refusal."""
    return f"TOOLARGE a key of {length} bytes is over the limit key_bytes_max ({limit} bytes)"


def unknown_command(item: list[Argument]) -> bytes:
    """Redis's own text: the name and the first arguments, cut to 128 bytes each."""
    texts = [_shown(argument) for argument in item]
    shown = ""
    for text in texts[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{text[: 128 - len(shown)]}' "
    return encode.error(
        f"ERR unknown command '{texts[0][:128]}', with args beginning with: {shown}"
    )


def _shown(argument: Argument) -> str:
    return argument[:128].decode("utf-8", "replace") if isinstance(argument, bytes) else "..."
