"""When memory that a burst left behind is given back."""

from __future__ import annotations

import ctypes
import mmap
import platform
from pathlib import Path

import pytest

from distkv.runtime.memory import REST_ROUNDS, WORTH_BYTES, Trimmer, use_huge_pages

MIB = 1 << 20


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


def huge_bytes(address: int) -> int:
    """Of the mapping that holds `address`."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word = line.split(maxsplit=1)[0]
        if not word.endswith(":"):
            start, end = (int(number, 16) for number in word.split("-"))
            inside = start <= address < end
        elif inside and word == "AnonHugePages:":
            return int(line.split()[1]) * 1024
    raise AssertionError("no such mapping")


def test_lasting_memory_moves_into_huge_pages_as_it_is() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    kernel = tuple(int(part) for part in platform.release().split(".")[:2])
    if kernel < (6, 1) or not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this kernel makes no huge pages on demand")
    block = mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    content = bytes(range(256)) * (8 * MIB // 256)
    block[:] = content
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    assert huge_bytes(address + 4 * MIB) == 0
    assert use_huge_pages() >= 6 * MIB
    assert huge_bytes(address + 4 * MIB) >= 6 * MIB
    assert block[:] == content
