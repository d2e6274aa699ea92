"""The whole state in pieces of bounded size, for a node too far behind the log.

The sender walks one consistent `View`; the receiver clears its state, writes the pieces as
they come, and removes the mark `installing` in the batch of the last one, after the
checksum over all pieces was right. A crash in between leaves the mark: `Machine.load`
refuses, and the installation starts again.

Piece: msgpack (format, number, rows), rows = (table, key, value, table, key, value, ...).
Last piece: msgpack (format, number, (), CRC-32C over all earlier pieces).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
import msgpack

from distkv.machine.rows import END, HEAD_ROW
from distkv.storage.base import Delete, DeleteRange, Engine, Put, StorageOperation, Table, View

FORMAT = 1
PIECE_BYTES = 256 * 1024
TABLES = (Table.STATE, Table.RECORD, Table.NAME, Table.EXPIRY)
INSTALLING = b"installing"
"""Row of META while the state is half a snapshot: format, and its slot (8 bytes)."""
_PAGE = 128
_SLOT = struct.Struct(">Q")
_ROW_OVERHEAD = 16


class SnapshotError(Exception):
    """A piece is damaged, out of order, or not a piece: start again, from another peer."""


class InstallInterrupted(Exception):
    """The state is half a snapshot: install one before anything else."""


def slot_of(rows: View | Engine) -> int:
    """The applied slot of the state in these rows."""
    head = rows.get(Table.STATE, HEAD_ROW)
    assert head is not None, "the state has no head row"
    slot: int = msgpack.unpackb(head)[1]
    return slot


class SnapshotSource:
    """Pieces 0, 1, ... of the state in `view`, which it owns. `slot`: its applied slot.

    Memory: one piece. The last piece given may be asked for again.
    """

    def __init__(self, view: View, piece_bytes: int = PIECE_BYTES) -> None:
        self._view = view
        self._piece_bytes = piece_bytes
        self._rows = self._walk()
        self._number = -1
        self._body = b""
        self._ended = False
        self._failed = False
        self._checksum = 0
        self.slot = slot_of(view)

    def piece(self, number: int) -> tuple[bytes, bool] | None:
        """Body, and whether it is the last; None if it is not the next or the latest.

        Raises CorruptRow, and gives no further piece then: what was left out would not be missed.
        """
        if number == self._number:
            return self._body, self._ended
        if number != self._number + 1 or self._ended or self._failed:
            return None
        self._failed = True
        rows = self._next_rows()
        self._failed = False
        self._number = number
        if rows:
            self._body = msgpack.packb((FORMAT, number, rows))
            self._checksum = google_crc32c.extend(self._checksum, self._body)
        else:
            self._ended = True
            self._body = msgpack.packb((FORMAT, number, (), self._checksum))
        return self._body, self._ended

    def close(self) -> None:
        """Release the view."""
        self._view.close()

    def _next_rows(self) -> list[object]:
        rows: list[object] = []
        size = 0
        for table, key, value in self._rows:
            rows += (int(table), key, value)
            size += len(key) + len(value) + _ROW_OVERHEAD
            if size >= self._piece_bytes:
                break
        return rows

    def _walk(self) -> Iterator[tuple[Table, bytes, bytes]]:
        for table in TABLES:
            start = b""
            while page := self._view.scan(table, start, None, _PAGE):
                for key, value in page:
                    yield table, key, value
                start = page[-1][0] + b"\0"


class SnapshotSink:
    """Turns pieces into engine batches. Write each batch before the next piece is taken."""

    def __init__(self) -> None:
        self.number = 0
        """The piece wanted next."""
        self.slot = -1
        """The applied slot of the snapshot, once its first piece was taken."""
        self.done = False
        self._checksum = 0

    def begin(self, slot: int) -> list[StorageOperation]:
        """Mark the installation of the state after `slot` and remove the old one."""
        return [
            Put(Table.META, INSTALLING, bytes([FORMAT]) + _SLOT.pack(slot)),
            *(DeleteRange(table, b"", END) for table in TABLES),
        ]

    def take(self, body: bytes) -> list[StorageOperation]:
        """The batch of the next piece; after the last one `done`. Raises SnapshotError."""
        assert not self.done, "the snapshot is complete"
        try:
            version, number, rows, *rest = msgpack.unpackb(body, use_list=False)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise SnapshotError(f"piece {self.number} is not msgpack: {error}") from error
        if version != FORMAT:
            raise SnapshotError(f"the snapshot has format {version!r}, this version reads {FORMAT}")
        if number != self.number:
            raise SnapshotError(f"piece {number!r} came instead of {self.number}")
        if rest:
            return self._end(rest)
        batch = _batch(rows)
        if self.number == 0:
            self.slot = _slot_in(batch[0])
        self._checksum = google_crc32c.extend(self._checksum, body)
        self.number += 1
        return [*batch]

    def _end(self, rest: list[object]) -> list[StorageOperation]:
        if self.number == 0:
            raise SnapshotError("the snapshot is empty, and no state is")
        if rest != [self._checksum]:
            raise SnapshotError("the checksum over all pieces of the snapshot is wrong")
        self.number += 1
        self.done = True
        return [Delete(Table.META, INSTALLING)]


def _slot_in(head: Put) -> int:
    """HEAD_ROW is the first of all rows."""
    try:
        slot = msgpack.unpackb(head.value)[1] if head.key == HEAD_ROW else None
    except (ValueError, TypeError, IndexError, msgpack.UnpackException):
        slot = None
    if type(slot) is not int or slot < 0:
        raise SnapshotError("the snapshot does not begin with its slot")
    return slot


def _batch(rows: object) -> list[Put]:
    if type(rows) is not tuple or not rows or len(rows) % 3:
        raise SnapshotError("a piece of the snapshot has no rows")
    batch: list[Put] = []
    for table, key, value in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        if table not in TABLES or type(key) is not bytes or type(value) is not bytes:
            raise SnapshotError("a piece of the snapshot holds something that is not a row")
        batch.append(Put(Table(table), key, value))
    return batch


def is_installing(engine: Engine) -> bool:
    """Whether a snapshot was begun and not completed."""
    return engine.get(Table.META, INSTALLING) is not None


def installing_slot(engine: Engine) -> int | None:
    """The slot of the snapshot that is half installed; None: none is, or nobody noted it."""
    mark = engine.get(Table.META, INSTALLING)
    return None if mark is None or len(mark) < 1 + _SLOT.size else int(_SLOT.unpack(mark[1:])[0])


def check_not_installing(engine: Engine) -> None:
    """Raise InstallInterrupted if the state is half a snapshot."""
    if is_installing(engine):
        raise InstallInterrupted("a snapshot was only half installed: install one again")
