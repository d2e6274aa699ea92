"""Batches of peer messages as bytes: msgpack (version, (code, field, ...), ...).

`decode` gives typed messages or raises WireError, whatever the bytes. Codes are wire
format: they are never reused, and a field is only ever added under a new code or version.
While a cluster is upgraded node by node, some do not know the newest codes yet: such a message
is `Unknown` to them, and the others that came with it are taken.

| codes   | messages                |
|---------|-------------------------|
| 1 - 31  | core.messages           |
| 32 - 63 | data.messages           |
| 64 - 95 | registered by the member |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from distkv.core import messages as core
from distkv.data import messages as data
from distkv.ids import VALUE_ID_BYTES
from distkv.wire import fields as f
from distkv.wire.fields import Reader, WireError

__all__ = ["VERSION", "Unknown", "WireError", "decode", "encode", "register"]

VERSION = 1
CODE_MAX = 255
MESSAGES_MAX = 65536
KEY_BYTES_MAX = 4096
STRIPE_BYTES_MAX = 2**30
assert VALUE_ID_BYTES == 20, "the fields of a value id are read as 8, 4 and 8 bytes"

_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb
_new = tuple.__new__

_codes: dict[type[Any], int] = {}
_readers: dict[int, tuple[type[Any], tuple[Reader, ...]]] = {}


class Unknown(NamedTuple):
    """A message of a version that this node does not know; it is to be left out."""

    code: int


def register(code: int, message: type[Any], *readers: Reader) -> None:
    """Let messages of this NamedTuple travel under `code`, one reader for each field."""
    names = message._fields
    assert code not in _readers, f"code {code} is taken"
    assert message not in _codes, f"{message.__name__} has the code {_codes[message]}"
    assert len(names) == len(readers), f"{message.__name__} has the fields {names}"
    _codes[message] = code
    _readers[code] = (message, readers)


def encode(messages: Sequence[Any]) -> bytes:
    """One payload for a batch of messages of one peer. Raises TypeError for a stranger."""
    items: list[Any] = [VERSION]
    for message in messages:
        code = _codes.get(type(message))
        if code is None:
            raise TypeError(f"{type(message).__name__} has no code: register it")
        items.append((code, *message))
    packed: bytes = _pack(items)
    return packed


def decode(payload: bytes) -> list[Any]:
    """The messages of a payload, in order. Raises WireError, and nothing else."""
    try:
        items = _unpack(payload, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"{len(payload)} bytes are not msgpack: {error!r:.200}") from error
    if type(items) is not tuple or not items or type(items[0]) is not int:
        raise WireError("the payload is not an array that starts with its version")
    if items[0] != VERSION:
        raise WireError(f"the payload has version {items[0]}, this node speaks {VERSION}")
    if len(items) > MESSAGES_MAX:
        raise WireError(f"the payload holds more than {MESSAGES_MAX} messages")
    return [_message(item) for item in items[1:]]


def _message(item: Any) -> Any:
    if type(item) is not tuple or not item:
        raise WireError("a message is not an array that starts with its code")
    code = item[0]
    if type(code) is not int:
        raise WireError("the code of a message is not a number")
    if code == _ACCEPTED and len(item) == 6:
        return _accepted(item)
    known = _readers.get(code)
    if known is None:
        if not 0 < code <= CODE_MAX:
            raise WireError(f"no message has the code {code}")
        return Unknown(code)
    message, readers = known
    if len(item) != len(readers) + 1:
        raise WireError(f"{message.__name__} with {len(item) - 1} fields")
    try:
        return _new(message, [r(v) for r, v in zip(readers, item[1:], strict=True)])
    except WireError as error:
        raise WireError(f"{message.__name__}: {error}") from None


def _accepted(item: Any) -> core.Accepted:
    """The commonest message of all, without the loop over its readers."""
    _, ballot, upto, chosen, probe, durable = item
    for value in (upto, chosen, probe, durable):
        if type(value) is not int or not 0 <= value < f.NUMBER_END:
            raise WireError("Accepted: a field is not a number")
    return _new(core.Accepted, (f.ballot(ballot), upto, chosen, probe, durable))


# -- consensus plane ---------------------------------------------------------------------

_ACCEPTED = 7
_accepted_entry = f.tuple_of(lambda *items: items, f.number, f.ballot, f.blob)

register(1, core.PreVote, f.ballot, f.number)
register(2, core.PreVoteReply, f.ballot, f.boolean, f.ballot, f.number)
register(3, core.Prepare, f.ballot, f.number)
register(4, core.Promise, f.ballot, f.number, f.number, f.array_of(_accepted_entry))
register(5, core.Refuse, f.ballot)
register(6, core.Accept, f.ballot, f.number, f.blobs, f.number, f.number)
register(_ACCEPTED, core.Accepted, f.ballot, f.number, f.number, f.number, f.number)
register(8, core.LearnRequest, f.number)
register(9, core.Learn, f.number, f.blobs, f.number, f.number)
register(10, core.ReadRequest, f.number)
register(11, core.ReadReply, f.number, f.optional_slot)
register(12, core.Transfer, f.ballot)

# -- data plane --------------------------------------------------------------------------

_count = f.integer(0, f.CRC_END - 1)
_shard = f.integer(0, 255)
_code = f.tuple_of(data.Code, _shard, _shard, f.integer(1, STRIPE_BYTES_MAX))

register(
    32,
    data.ShardPiece,
    f.value_id,
    _shard,
    _count,
    _count,
    _code,
    f.number,
    f.ballot,
    f.number,
    f.blob_to(KEY_BYTES_MAX),
    f.number,
    f.crc,
    f.blob,
)
register(33, data.ShardStored, f.value_id, _shard)
register(34, data.ShardRefused, f.value_id, _shard, f.one_of(data.Refusal))
register(35, data.ShardDropped, f.array_of(f.value_id))
register(36, data.ShardWanted, f.number, f.value_id, _count, _count)
register(
    37,
    data.ShardGiven,
    f.number,
    f.one_of(data.Found),
    _shard,
    _count,
    f.number,
    f.crc,
    f.blob,
)
