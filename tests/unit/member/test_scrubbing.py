"""Scrubbing of a member reads the engine's files beyond rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.member.alone import Alone

from distkv.member.options import MemberOptions
from distkv.storage.base import Put, Table
from distkv.storage.files import FilesEngine
from distkv.storage.files.format import HEAD_BYTES, Frame
from distkv.storage.files.segment import Segment


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def first_batch(engine: FilesEngine) -> tuple[Segment, Frame]:
    segment = engine._log.segments[min(engine._log.segments)]
    frames = segment.frames if segment.frames is not None else list(segment.read_hint() or ())
    return segment, frames[0]


def scrub(alone: Alone) -> Any:
    health: Any = alone.member.status()["health"]
    return health["scrub"]


@pytest.mark.parametrize("place", ["head", "directory", "foot"])
def test_a_damaged_frame_is_found_counted_and_mended(tmp_path: Path, place: str) -> None:
    engine = FilesEngine(tmp_path, segment_bytes=4096, reserve_bytes=0)
    engine.write([Put(Table.META, b"filler %d" % i, bytes(300)) for i in range(20)])
    alone = Alone(engine, MemberOptions(scrub_period=2.0))
    segment, frame = first_batch(engine)
    before = segment.path.read_bytes()[: frame.end]
    offset = {
        "head": frame.offset + 8,
        "directory": frame.offset + HEAD_BYTES + frame.values_bytes + 3,
        "foot": frame.end - 2,
    }[place]
    flip(segment.path, offset)
    alone.until(lambda: scrub(alone)["rotten"] == {"FRAMING": 1})
    assert scrub(alone)["mended"] == 1
    assert segment.path.read_bytes()[: frame.end] == before
    rounds = scrub(alone)["rounds"]
    alone.until(lambda: scrub(alone)["rounds"] >= rounds + 2)
    assert scrub(alone)["rotten"] == {"FRAMING": 1}
    engine.close()


def test_damage_that_nobody_can_mend_is_reported(tmp_path: Path) -> None:
    engine = FilesEngine(tmp_path, segment_bytes=4096, reserve_bytes=0)
    engine.write([Put(Table.META, b"filler %d" % i, bytes(300)) for i in range(20)])
    alone = Alone(engine, MemberOptions(scrub_period=2.0))
    segment, frame = first_batch(engine)
    assert segment.hint_path.exists()
    flip(segment.hint_path, 40)
    names = frame.offset + HEAD_BYTES + frame.values_bytes
    for offset in (names, names + 2 * frame.directory_bytes - 1):
        flip(segment.path, offset)
    alone.until(lambda: any(s["kind"] == "damaged_files" for s in suspicions(alone)))
    engine.close()


def suspicions(alone: Alone) -> Any:
    return alone.member.status()["suspicions"]
