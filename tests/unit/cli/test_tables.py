"""The status as a person sees it on a terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from distkv.cli.tables import show_cluster


def cluster(state: str, missing: int = 0) -> dict[str, Any]:
    node = {
        "process": "running",
        "role": "follower",
        "state": state,
        "applied": 12345,
        "shards": 4000,
        "shards_missing": missing,
        "shards_corrupt": 0,
        "repair_bytes_left": 1024,
        "repair_seconds_left": 7,
        "pid": 31415,
        "detail": None,
        "replacement": None,
    }
    ports = [{"resp": 17010 + 10 * i, "http": 17011 + 10 * i} for i in range(5)]
    return {
        "name": "local",
        "formed": True,
        "data_shards": 3,
        "parity_shards": 2,
        "leader": 3,
        "shards_missing": missing,
        "shards_corrupt": 0,
        "values_lost": 0,
        "under_coded": 0,
        "repair_bytes_left": 0,
        "repair_bytes_per_second": 0,
        "repair_seconds_left": 0,
        "survives": {"available": 2, "durable": 2, "durable_if_silent_return": 2},
        "suspicions": [],
        "nodes": [node | {"ordinal": i, "ports": port} for i, port in enumerate(ports)],
        "gateway": {
            "process": "running",
            "state": "ready",
            "resp": "127.0.0.1:17000",
            "http": "127.0.0.1:17001",
            "pid": 27182,
        },
    }


def shown(
    found: dict[str, Any],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """Lines of the table, on a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_cluster(found)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return [line.rstrip() for line in plain.splitlines() if re.match(r"node|\d|gateway", line)]


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_nothing_of_the_status_is_cut_off(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(cluster("waiting to be admitted", 7), columns, monkeypatch, capsys)
    assert len(lines) == 7
    for word in ("waiting to be admitted", "follower", "17050", "17051", "1.0 KiB left"):
        assert word in lines[5]
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    assert "17000" in lines[6]
    assert ("31415" in lines[5]) == (columns >= 100)


def test_a_healthy_cluster_fits_into_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(cluster("serving"), 80, monkeypatch, capsys)
    assert len(lines) == 7
    assert "repair" not in lines[0]
    assert max(map(len, lines)) <= 80
