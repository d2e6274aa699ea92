"""Checking what frames the rows on disk: segment headers, both ends and both directories of
every batch, hint files.

While the node runs nobody reads them, and an opening bears one damaged copy only; so they are
read again now and then, past every cache, and a damaged copy is written again, byte by byte as
it was: from the directory in memory, from the hint file, or from the other copy. If no copy
is left the place is reported and stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from distkv.storage.base import Framing
from distkv.storage.files.format import (
    FOOT_MAGIC,
    HEAD_BYTES,
    HEAD_MAGIC,
    SEGMENT_HEADER_BYTES,
    Frame,
    pack_body,
    pack_segment_header,
)
from distkv.storage.files.log import Log
from distkv.storage.files.recovery import Gap, read_tolerant, walk
from distkv.storage.files.segment import Segment

JOINED_BYTES = 32 << 10
"""Shorter batches are read in one piece, values and all."""


class _Piece(NamedTuple):
    """Bytes of a segment as they should be."""

    offset: int
    content: bytes


class FramingCheck:
    """Goes from segment to segment. Owner thread only."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._number = 0
        self._frames: list[Frame] = []
        self._next = 0

    def step(self, position: int, budget_bytes: int) -> Framing:
        """See base.Engine.check_framing. The position is a segment's number and the offset
        of the batch that is next in it."""
        number, offset = position >> 32, position & 0xFFFFFFFF
        numbers = sorted(self._log.segments)
        later = [n for n in numbers if n >= number]
        if not later:
            return Framing(0, 0, 0, 0)
        if later[0] != number:
            number, offset = later[0], 0
        segment = self._log.segments[number]
        found = _Found(segment)
        if number != self._number or offset == 0:
            self._begin(segment, found)
        while self._next < len(self._frames) and self._frames[self._next].offset < offset:
            self._next += 1
        if offset == 0:
            self._check(segment, found, _header(segment))
        while self._next < len(self._frames) and found.read < budget_bytes:
            frame = self._frames[self._next]
            self._next += 1
            self._check(segment, found, _ends(segment, frame))
        found.mend()
        if self._next < len(self._frames):
            after = number << 32 | self._frames[self._next].offset
        else:
            self._number, self._frames = 0, []
            after = 0 if number == numbers[-1] else (number + 1) << 32
        return Framing(after, found.read, found.damaged, found.mended)

    def _begin(self, segment: Segment, found: _Found) -> None:
        """Learn what the segment should hold, as far as it is durable."""
        self._number, self._next = segment.number, 0
        frames = segment.frames
        if frames is not None:
            self._frames = [f for f in frames if f.sequence <= self._log.durable]
            return
        _forget_pages(segment)
        hinted = segment.read_hint()
        if hinted is not None:
            self._frames = list(hinted)
            return
        found.damaged += 1
        self._frames = self._from_segment(segment, found)

    def _from_segment(self, segment: Segment, found: _Found) -> list[Frame]:
        """The hint is damaged or gone: what the segment says of itself makes a new one."""
        items = walk(read_tolerant(segment.path), segment.salt, str(segment.path))
        frames = [f for f in items if isinstance(f, Frame) and f.directory is not None]
        lost = sum(isinstance(f, Gap) or f.directory is None for f in items)
        found.damaged += lost
        if not lost:
            segment.frames = frames
            segment.write_hint()
            found.mended += segment.frames is None
        return frames

    def _check(self, segment: Segment, found: _Found, pieces: list[_Piece]) -> None:
        first, last = pieces[0].offset, pieces[-1].offset + len(pieces[-1].content)
        if last - first <= JOINED_BYTES:
            raw = self._read(segment, first, last - first)
            found.read += len(raw)
            there = [raw[p.offset - first : p.offset - first + len(p.content)] for p in pieces]
        else:
            there = [self._read(segment, p.offset, len(p.content)) for p in pieces]
            found.read += sum(map(len, there))
        found.wrong += [p for p, raw in zip(pieces, there, strict=True) if raw != p.content]

    def _read(self, segment: Segment, offset: int, length: int) -> bytes:
        self._log.forget_pages(segment.number, offset, length)
        try:
            return os.pread(self._log.descriptors.get(segment), length, offset)
        except OSError:  # the device cannot read it: as good as damaged
            return b""


class _Found:
    """Of one step in one segment."""

    def __init__(self, segment: Segment) -> None:
        self.read = 0
        self.damaged = 0
        self.mended = 0
        self.wrong: list[_Piece] = []
        self._segment = segment

    def mend(self) -> None:
        """Write every damaged piece again. Its other copies are not touched, so a crash
        in the middle leaves nothing worse than it found."""
        self.damaged += len(self.wrong)
        if not self.wrong:
            return
        try:
            fd = os.open(self._segment.path, os.O_RDWR)
        except OSError:
            return
        try:
            for offset, content in self.wrong:
                if os.pwrite(fd, content, offset) != len(content):
                    return
            os.fdatasync(fd)
            self.mended += len(self.wrong)
        except OSError:
            return
        finally:
            os.close(fd)


def _forget_pages(segment: Segment) -> None:
    """Of its hint file, so that the device is read."""
    try:
        fd = os.open(segment.hint_path, os.O_RDONLY)
    except OSError:
        return
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def _header(segment: Segment) -> list[_Piece]:
    return [_Piece(0, pack_segment_header(segment.number, segment.salt))]


def _ends(segment: Segment, frame: Frame) -> list[_Piece]:
    """HEAD, both directories and FOOT of a batch, each by itself."""
    return list(_pieces(segment, frame))


def _pieces(segment: Segment, frame: Frame) -> Iterator[_Piece]:
    names = frame.directory
    assert names is not None
    body = pack_body(
        segment.salt,
        frame.offset,
        frame.sequence,
        frame.durable,
        frame.values_bytes,
        frame.rows,
        names,
    )
    yield _Piece(frame.offset, HEAD_MAGIC + body)
    first = frame.offset + HEAD_BYTES + frame.values_bytes
    if names:
        yield _Piece(first, names)
        yield _Piece(first + len(names), names)
    yield _Piece(frame.end - HEAD_BYTES, FOOT_MAGIC + body)


assert SEGMENT_HEADER_BYTES > 0, "offset 0 is no batch: it stands for a segment's beginning"
