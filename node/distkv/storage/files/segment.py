"""Segment files: names, sizes, open descriptors."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from distkv.storage.base import StorageError
from distkv.storage.files.format import (
    SEGMENT_HEADER_BYTES,
    Frame,
    check_hint,
    hint_frames,
    pack_hint,
)

SALT_BYTES = 8
_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})\.segment")
MAX_OPEN_SEALED = 256
"""Descriptors kept open for reading; far below the usual limit of 1024 per process."""


class Segment:
    """One file of the log. `size`: bytes of whole batches; `live`: bytes of live rows.

    `room`: of an active one: up to here zeros are written ahead, see Log.

    `last_sequence`: of its last batch.
    `frames`: its batches while no hint file has been written, else None.
    `skipped_at`: compaction passes it over until fewer bytes than this are live.
    """

    __slots__ = (
        "directory",
        "fd",
        "frames",
        "last_sequence",
        "live",
        "number",
        "room",
        "salt",
        "size",
        "skipped_at",
    )

    def __init__(self, directory: Path, number: int, salt: bytes) -> None:
        self.directory = directory
        self.number = number
        self.salt = salt
        self.size = self.room = SEGMENT_HEADER_BYTES
        self.live = 0
        self.last_sequence = 0
        self.fd = -1
        self.frames: list[Frame] | None = []
        self.skipped_at: int | None = None

    @property
    def path(self) -> Path:
        """Name holds number and salt, so a damaged header loses neither."""
        return self.directory / f"{self.number:08x}-{self.salt.hex()}.segment"

    @property
    def hint_path(self) -> Path:
        """Directories of all batches, written once the segment is sealed and flushed."""
        return self.path.with_suffix(".hint")

    def write_hint(self) -> None:
        """Write the hint file (not synced: a torn one is seen and the segment read instead)."""
        frames = self.frames
        if frames is None:
            return
        temporary = self.path.with_suffix(".hint-new")
        try:
            temporary.write_bytes(pack_hint(self.number, self.salt, frames))
            os.replace(temporary, self.hint_path)
        except OSError:  # full disk: opening reads the segment itself
            temporary.unlink(missing_ok=True)
            return
        self.frames = None

    def read_hint(self) -> Iterator[Frame] | None:
        """Its batches by the hint file; None if there is none that can be used."""
        try:
            raw = self.hint_path.read_bytes()
        except OSError:
            return None
        body = check_hint(raw, self.number, self.salt)
        return None if body is None else hint_frames(body)

    def remove(self) -> None:
        """Unlink segment and hint."""
        self.path.unlink(missing_ok=True)
        self.hint_path.unlink(missing_ok=True)


class Descriptors:
    """Open files of sealed segments, least recently used closed first. Owner thread only."""

    def __init__(self, limit: int = MAX_OPEN_SEALED) -> None:
        self._open: OrderedDict[int, Segment] = OrderedDict()
        self._limit = limit

    def get(self, segment: Segment) -> int:
        """Descriptor to read with; opened if need be. Raises StorageError."""
        if segment.fd >= 0:
            if segment.number in self._open:
                self._open.move_to_end(segment.number)
            return segment.fd
        try:
            segment.fd = os.open(segment.path, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"cannot open {segment.path}: {error.strerror}") from error
        self.keep(segment)
        return segment.fd

    def keep(self, segment: Segment) -> None:
        """Take over a segment that was just sealed and flushed."""
        self._open[segment.number] = segment
        while len(self._open) > self._limit:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest.fd)
            oldest.fd = -1

    def close(self, segment: Segment) -> None:
        """Close it, if open."""
        self._open.pop(segment.number, None)
        if segment.fd >= 0:
            os.close(segment.fd)
            segment.fd = -1


def find_segments(directory: Path) -> list[Segment]:
    """Segments in the directory in the order of their numbers; leftovers are removed."""
    found: list[Segment] = []
    others: list[Path] = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(Segment(directory, int(match[1], 16), bytes.fromhex(match[2])))
        elif path.suffix in (".hint", ".hint-new"):
            others.append(path)
    found.sort(key=lambda segment: segment.number)
    for first, second in pairwise(found):
        if first.number == second.number:
            raise StorageError(f"{first.path} and {second.path} have the same number")
    hints = {segment.hint_path for segment in found}
    for path in others:
        if path not in hints:
            path.unlink(missing_ok=True)
    return found
