"""Format of segment and hint files. All integers are big endian.

A segment file is a header and then batches, one after the other:

    batch = HEAD | value ... value | directory | directory again | FOOT
    directory = entry ... entry
    entry = kind, table, key length, value length, value crc, killed | key | tail

HEAD and FOOT hold the same fields, so a damaged start of a batch is found again from its end,
and the directory is there twice: a flipped bit then damages at most rows whose names are
still known. The checksum of HEAD covers the segment's salt and the offset, so bytes of
another segment (or a stored copy of this one inside a value) never pass for a batch.

`sequence` numbers batches through all segments. `durable` is the highest sequence known to
be flushed when the batch was written: it tells a damaged batch (at or below it) from a torn
one (above it). `killed` is the number of the segment that holds the row which this entry
replaced or removed, 0 for none; compaction needs it, see compaction.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from distkv.storage.base import StorageError
from distkv.storage.checksum import crc32c

VERSION = 1
"""Version of the segment, batch and hint format that this code writes; it reads 1 as well."""

_SEGMENT_MAGIC = b"DKVS"
_HINT_MAGIC = b"DKVH"
HEAD_MAGIC = b"\xd5DKB"
FOOT_MAGIC = b"\xd5DKE"

_SEGMENT = struct.Struct(">4sHHQ8sI")
SEGMENT_HEADER_BYTES = _SEGMENT.size
_FIELDS = struct.Struct(">BBHQQIIII")
_PLACE = struct.Struct(">8sQ")
_CRC = struct.Struct(">I")
BODY_BYTES = _FIELDS.size + _CRC.size
HEAD_BYTES = 4 + BODY_BYTES
ENTRY = struct.Struct(">BBHIII")
ENTRY_BYTES = ENTRY.size
_HINT_FRAME = struct.Struct(">QQQIII")

PUT = 1
KILL = 2
"""Remove the key's row if it is in segment `killed`."""
KILL_RANGE = 3
"""Key is the start; tail (value length) is the end's length, the end, then segments: remove
every row in the range that is in one of these segments."""
_RANGE_END = struct.Struct(">H")


class Frame(NamedTuple):
    """Where a batch is in its segment. `directory` is None if both copies are damaged.

    `intact`: HEAD, both directories and FOOT are all as written (values not looked at).
    """

    offset: int
    sequence: int
    durable: int
    values_bytes: int
    directory_bytes: int
    rows: int
    directory: bytes | None
    intact: bool

    @property
    def end(self) -> int:
        """Offset of the next batch."""
        return self.offset + 2 * HEAD_BYTES + self.values_bytes + 2 * self.directory_bytes


class Entry(NamedTuple):
    """One line of a directory. `offset` and `length`: the value; `killed`: see above."""

    kind: int
    table: int
    key: bytes
    offset: int
    length: int
    crc: int
    killed: int
    tail: bytes


def pack_segment_header(number: int, salt: bytes) -> bytes:
    """Start of a segment file."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, VERSION, 0, number, salt, 0)[:-4]
    return head + _CRC.pack(crc32c(head))


def check_segment_header(raw: bytes, where: str) -> None:
    """Raises StorageError if a later version wrote it. A damaged header is passed over:
    number and salt are in the file's name too, and every batch has its own version."""
    if len(raw) < SEGMENT_HEADER_BYTES:
        return
    head = raw[: SEGMENT_HEADER_BYTES - 4]
    magic, version, _, _, _, crc = _SEGMENT.unpack(raw[:SEGMENT_HEADER_BYTES])
    if magic == _SEGMENT_MAGIC and crc == crc32c(head):
        _check_version(version, where)


def _check_version(version: int, where: str) -> None:
    if version != VERSION:
        raise StorageError(
            f"{where} has format version {version}, this program reads {VERSION}: "
            "start it with the program that wrote it"
        )


def pack_body(
    salt: bytes,
    offset: int,
    sequence: int,
    durable: int,
    values_bytes: int,
    rows: int,
    names: bytes,
) -> bytes:
    """The fields of HEAD and FOOT (without magic) of the batch at `offset`."""
    fields = _FIELDS.pack(
        VERSION, 0, 0, sequence, durable, values_bytes, len(names), rows, crc32c(names)
    )
    return fields + _CRC.pack(crc32c(_PLACE.pack(salt, offset) + fields))


def _frame(raw: bytes, salt: bytes, offset: int, body: bytes, where: str) -> Frame | None:
    """The batch at `offset` whose fields are `body`, if body's checksum and sizes fit."""
    fields = body[:-4]
    if len(body) < BODY_BYTES:
        return None
    if _CRC.unpack(body[-4:])[0] != crc32c(_PLACE.pack(salt, offset) + fields):
        return None
    version, _, _, sequence, durable, values, names, rows, crc = _FIELDS.unpack(fields)
    _check_version(version, where)
    frame = Frame(offset, sequence, durable, values, names, rows, None, False)
    if frame.end > len(raw):
        return None
    start = offset + HEAD_BYTES + values
    first, second = raw[start : start + names], raw[start + names : start + 2 * names]
    foot = raw[frame.end - HEAD_BYTES : frame.end]
    good = [copy for copy in (first, second) if crc32c(copy) == crc]
    whole = len(good) == 2 and foot == FOOT_MAGIC + body
    return frame._replace(directory=good[0] if good else None, intact=whole)


def frame_at(raw: bytes, salt: bytes, offset: int, where: str) -> Frame | None:
    """The batch that starts at `offset`; None if its HEAD is damaged or its end is missing."""
    if raw[offset : offset + 4] != HEAD_MAGIC:
        return None
    return _frame(raw, salt, offset, raw[offset + 4 : offset + HEAD_BYTES], where)


def frame_before(raw: bytes, salt: bytes, end: int, where: str) -> Frame | None:
    """The batch whose FOOT ends at `end`; None if FOOT is damaged as well."""
    foot = raw[max(0, end - HEAD_BYTES) : end]
    if len(foot) < HEAD_BYTES or foot[:4] != FOOT_MAGIC:
        return None
    _, _, _, _, _, values, names, _, _ = _FIELDS.unpack(foot[4:-4])
    offset = end - 2 * HEAD_BYTES - values - 2 * names
    if offset < SEGMENT_HEADER_BYTES:
        return None
    frame = _frame(raw, salt, offset, foot[4:], where)
    return None if frame is None else frame._replace(intact=False)


def pack_range_tail(end: bytes, segments: list[int]) -> bytes:
    """Tail of a KILL_RANGE entry."""
    return _RANGE_END.pack(len(end)) + end + struct.pack(f">{len(segments)}I", *segments)


def unpack_range_tail(tail: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Inverse of `pack_range_tail`."""
    (length,) = _RANGE_END.unpack_from(tail)
    rest = tail[2 + length :]
    return tail[2 : 2 + length], struct.unpack(f">{len(rest) // 4}I", rest)


def entries(frame: Frame) -> Iterator[Entry]:
    """The lines of an undamaged directory. Raises StorageError if it makes no sense."""
    names = frame.directory
    assert names is not None
    position, value = 0, frame.offset + HEAD_BYTES
    unpack = ENTRY.unpack_from
    while position < len(names):
        kind, table, key_bytes, length, crc, killed = unpack(names, position)
        position += ENTRY_BYTES
        key = names[position : position + key_bytes]
        position += key_bytes
        if kind == PUT:
            yield Entry(kind, table, key, value, length, crc, killed, b"")
            value += length
        elif kind == KILL:
            yield Entry(kind, table, key, 0, 0, 0, killed, b"")
        elif kind == KILL_RANGE:
            tail = names[position : position + length]
            position += length
            yield Entry(kind, table, key, 0, 0, 0, 0, tail)
        else:
            raise StorageError(f"batch {frame.sequence} has an entry of unknown kind {kind}")


def pack_hint(number: int, salt: bytes, frames: list[Frame]) -> bytes:
    """All directories of a sealed segment, so that opening need not read its values."""
    parts = [_SEGMENT.pack(_HINT_MAGIC, VERSION, 0, number, salt, len(frames))]
    for frame in frames:
        assert frame.directory is not None
        parts.append(_HINT_FRAME.pack(*frame[:6]))
        parts.append(frame.directory)
    body = b"".join(parts)
    return body + _CRC.pack(crc32c(body))


def check_hint(raw: bytes, number: int, salt: bytes) -> bytes | None:
    """What `hint_frames` reads; None if damaged, of another version or another segment."""
    body = raw[:-4]
    if len(raw) < SEGMENT_HEADER_BYTES + 4 or _CRC.unpack(raw[-4:])[0] != crc32c(body):
        return None
    magic, version, _, its_number, its_salt, _ = _SEGMENT.unpack_from(body)
    if (magic, version, its_number, its_salt) != (_HINT_MAGIC, VERSION, number, salt):
        return None
    return body


def hint_frames(body: bytes) -> Iterator[Frame]:
    """The batches of a hint, one by one: compaction does not want them all at once."""
    position = SEGMENT_HEADER_BYTES
    while position < len(body):
        offset, sequence, durable, values, length, rows = _HINT_FRAME.unpack_from(body, position)
        position += _HINT_FRAME.size
        names = body[position : position + length]
        position += length
        yield Frame(offset, sequence, durable, values, length, rows, names, True)
