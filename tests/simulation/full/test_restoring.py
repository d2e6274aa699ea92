"""Disks of whole clusters go back to snapshots: their nodes are told, halt and are replaced."""

from __future__ import annotations

import pytest

from distkv.member.seat import Seat
from distkv.simulation.full_world import Violation, World


def run_worlds() -> int:
    """How many directories that went back were noticed."""
    worlds = [World(seed, restores=True) for seed in range(1, 31)]
    for world in worlds:
        world.run()
    return sum(world.restoring.noticed for world in worlds)


def test_no_world_breaks_and_nobody_runs_on_unnoticed() -> None:
    assert run_worlds() > 3


def test_a_directory_that_went_back_unnoticed_breaks_its_world(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Seat, "meets", lambda self, peer, greeting: 0)
    with pytest.raises(Violation):
        run_worlds()


def test_worlds_draw_it() -> None:
    assert 10 < sum(World(seed).restoring.active for seed in range(100)) < 40
