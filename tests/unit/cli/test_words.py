"""What people read of a status."""

from __future__ import annotations

from typing import Any

import pytest

from distkv.cli.words import duration, missing_line, repair_line, size, survival_line


@pytest.mark.parametrize(
    ("available", "durable", "returning", "said"),
    [
        (2, 2, 2, "any 2 further nodes may stop and all goes on; any 2 further disks may be lost "),
        (1, 1, 1, "any one further node may stop and all goes on; any one further disk may be "),
        (2, 4, 4, "4 further disks may be lost without losing a value; past 2 at once requests "),
        (
            0,
            1,
            1,
            "any one further disk may be lost without losing a value, but requests are refused ",
        ),
        (0, 0, 0, "no further node may stop; no further disk may be lost for certain"),
        (0, 0, 2, "for certain (2 if the nodes that do not answer still have theirs)"),
        (1, None, None, "how many disks may be lost is not known yet"),
        (None, None, None, "is not known: no node sees a quorum"),
    ],
)
def test_what_may_fail(
    available: int | None, durable: int | None, returning: int | None, said: str
) -> None:
    survives = {"available": available, "durable": durable, "durable_if_silent_return": returning}
    assert said in survival_line(survives)


def whole(**fields: Any) -> dict[str, Any]:
    return {
        "shards_missing": 0,
        "shards_corrupt": 0,
        "under_coded": 0,
        "repair_bytes_left": 0,
        "repair_bytes_per_second": 0,
        "repair_seconds_left": 0,
    } | fields


def test_what_is_missing() -> None:
    nodes = [{"ordinal": i, "shards_missing": i, "shards_corrupt": 0} for i in range(3)]
    assert missing_line(whole(shards_missing=3), nodes) == "shards missing 3, corrupt 0"
    nodes[1] |= {"shards_missing": None, "shards_corrupt": None}
    said = missing_line(whole(shards_missing=None, shards_corrupt=None), nodes)
    assert said == "shards missing at least 2, corrupt at least 0 (not known of node 1)"
    for node in nodes:
        node |= {"shards_missing": None, "shards_corrupt": None}
    said = missing_line(whole(shards_missing=None, shards_corrupt=None), nodes)
    assert said.startswith("shards missing unknown, corrupt unknown")


def test_what_repair_does() -> None:
    assert repair_line(whole()) == ""
    busy = whole(repair_bytes_left=3 << 20, repair_bytes_per_second=1 << 20, repair_seconds_left=3)
    assert repair_line(busy) == "; 3.0 MiB to rebuild, 1.0 MiB/s, about 3 s left"
    assert repair_line(whole(repair_bytes_left=100)) == "; 100 B to rebuild"


def test_sizes_and_durations() -> None:
    assert [size(n) for n in (None, 0, 1023, 1536, 5 << 40)] == [
        *("-", "0 B", "1023 B", "1.5 KiB", "5.0 TiB")
    ]
    assert [duration(s) for s in (None, 5, 150, 8000)] == ["-", "5 s", "2 min", "2.2 h"]
