"""When memory that a burst left behind is given back."""

from __future__ import annotations

from pathlib import Path

from distkv.runtime.memory import REST_ROUNDS, WORTH_BYTES, Trimmer


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_only_at_rest_and_only_after_a_burst() -> None:
    trimmer = Trimmer()
    assert not any(trimmer.look(0) for _ in range(10))
    trimmer.look(WORTH_BYTES - 1)
    assert not any(trimmer.look(0) for _ in range(10))
    trimmer.look(WORTH_BYTES)
    looks = []
    for in_flight in [0] * (REST_ROUNDS - 1) + [1] + [0] * (REST_ROUNDS + 3):
        looks.append(trimmer.look(in_flight))
    assert looks.count(True) == 1
    assert looks.index(True) == 2 * REST_ROUNDS - 1


def test_free_blocks_below_the_top_of_the_heap_go_back_to_the_system() -> None:
    before = resident()
    blocks = [bytes(100_000) for _ in range(1000)]
    kept = blocks[::100]
    blocks.clear()
    trimmer = Trimmer()
    trimmer.look(100_000_000)
    assert any(trimmer.look(0) for _ in range(REST_ROUNDS))
    assert len(kept) == 10
    assert resident() - before < 50_000_000
