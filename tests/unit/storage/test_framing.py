"""Damage besides rows: headers, batch ends, directories and hints are read again and mended."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from unit.storage.model import SMALL_SEGMENT, random_batch

from distkv.storage.base import Put, StorageError, Table
from distkv.storage.files import FilesEngine
from distkv.storage.files.format import HEAD_BYTES, SEGMENT_HEADER_BYTES, Frame
from distkv.storage.files.segment import Segment

BUDGET = 700


def engine_with(path: Path, batches: int = 40) -> FilesEngine:
    """Several segments, all durable; the last of them is still written to."""
    rng = random.Random(5)
    engine = FilesEngine(path, segment_bytes=SMALL_SEGMENT, reserve_bytes=0)
    for _ in range(batches):
        engine.write(random_batch(rng))
        engine.flush()
    engine.write([Put(Table.META, b"last", rng.randbytes(40))])
    engine.flush()
    assert len(engine._log.segments) > 2
    return engine


def look(engine: FilesEngine) -> tuple[int, int, int]:
    """(damaged, mended, bytes read) of one whole round."""
    damaged = mended = read = position = 0
    while True:
        found = engine.check_framing(position, BUDGET)
        damaged, mended = damaged + found.damaged, mended + found.mended
        read += found.read
        position = found.next
        if not position:
            return damaged, mended, read


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def frames_of(segment: Segment) -> list[Frame]:
    return list(segment.frames if segment.frames is not None else segment.read_hint() or ())


def places(frame: Frame) -> list[int]:
    """An offset inside HEAD, each directory and FOOT."""
    names = frame.offset + HEAD_BYTES + frame.values_bytes
    length = frame.directory_bytes
    return [frame.offset + 9, names, names + 2 * length - 1, frame.end - 1]


def test_sound_files_are_read_whole_and_left_alone(quick_path: Path) -> None:
    engine = engine_with(quick_path)
    before = contents(quick_path)
    damaged, mended, read = look(engine)
    assert (damaged, mended) == (0, 0)
    assert read >= 0.9 * engine.usage().on_disk
    assert contents(quick_path) == before
    engine.close()


def test_every_damaged_place_is_found_counted_and_written_as_it_was(quick_path: Path) -> None:
    engine = engine_with(quick_path)
    before = contents(quick_path)
    tried = 0
    for segment in engine._log.segments.values():
        offsets = [SEGMENT_HEADER_BYTES // 2]
        for frame in frames_of(segment):
            offsets += places(frame)
        for offset in offsets:
            flip(segment.path, offset)
            assert look(engine)[:2] == (1, 1), (segment.path, offset)
            assert contents(quick_path) == before
            tried += 1
    assert tried > 100
    engine.close()


def test_all_copies_of_a_directory_are_written_again_while_the_node_runs(quick_path: Path) -> None:
    """Opening would refuse such files: nobody could tell which rows they held."""
    for part in ("sealed", "written"):
        path = quick_path / part
        engine = engine_with(path)
        before = contents(path)
        numbers = sorted(engine._log.segments)
        segment = engine._log.segments[numbers[0 if part == "sealed" else -1]]
        frame = frames_of(segment)[0]
        for offset in places(frame):
            flip(segment.path, offset)
        assert look(engine)[:2] == (4, 4)
        assert contents(path) == before
        engine.close()
        FilesEngine(path, segment_bytes=SMALL_SEGMENT, reserve_bytes=0).close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_hint_that_is_damaged_or_gone_is_made_anew(quick_path: Path, gone: bool) -> None:
    engine = engine_with(quick_path)
    before = contents(quick_path)
    segment = engine._log.segments[min(engine._log.segments)]
    if gone:
        segment.hint_path.unlink()
    else:
        flip(segment.hint_path, 40)
    assert look(engine)[:2] == (1, 1)
    assert contents(quick_path) == before
    assert look(engine)[:2] == (0, 0)
    engine.close()


def test_what_no_copy_tells_is_reported_and_not_made_up(quick_path: Path) -> None:
    engine = engine_with(quick_path)
    segment = engine._log.segments[min(engine._log.segments)]
    frame = frames_of(segment)[0]
    flip(segment.hint_path, 40)
    for offset in places(frame):
        flip(segment.path, offset)
    damaged, mended, _ = look(engine)
    assert damaged > mended
    engine.close()
    with pytest.raises(StorageError, match="damaged beyond telling"):
        FilesEngine(quick_path, segment_bytes=SMALL_SEGMENT, reserve_bytes=0)


def test_it_goes_on_while_segments_come_and_go(quick_path: Path) -> None:
    engine = engine_with(quick_path)
    rng = random.Random(6)
    position = 0
    for turn in range(300):
        found = engine.check_framing(position, BUDGET)
        assert found.damaged == 0, turn
        position = found.next
        engine.write(random_batch(rng))
        if turn % 3 == 0:
            engine.flush()
        while engine.compact_step():
            pass
    engine.write([Put(Table.META, b"n", b"1")])
    engine.close()
