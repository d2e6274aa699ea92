"""What the status says survives while lost disks are refilled."""

from __future__ import annotations

import pytest
from simulation.full.mutations import installed
from simulation.full.refill import DIRECTED, refilled

from distkv.simulation.full_world import Violation


def test_a_disk_counts_as_whole_once_it_is() -> None:
    worlds = [refilled(seed) for seed in range(1, 31)]
    assert any(world.wiped for world in worlds), "some were watched only while they were refilled"
    assert any(not world.wiped for world in worlds), "and some until they were whole"


@pytest.mark.parametrize("name", DIRECTED)
def test_mutations_of_it_are_caught(name: str) -> None:
    with installed(name), pytest.raises(Violation, match=r"says that \d disks may be lost"):
        refilled(1)
