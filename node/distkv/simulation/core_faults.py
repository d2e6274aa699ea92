"""What may go wrong in a world of the core: rates drawn once per seed."""

from __future__ import annotations

import random
from typing import NamedTuple

from distkv.core.configuration import Configuration
from distkv.core.options import ReplicaOptions


class Faults(NamedTuple):
    """Rates are per message, or per second of virtual time; times in ms."""

    loss: float
    duplicate: float
    late: float
    late_max: float
    flush_max: float
    crash: float
    kill_leader: float
    partition: float
    pause: float
    clock: float
    isolate: float
    hint: float
    transfer: float
    truncate: float
    wipe: float
    change: float
    crash_at_flush: float
    stale: float
    """Answers to a leader are held back until it leads again, under another ballot."""
    newcomer: float
    """Chance that a member that was just admitted, and lagged, crashes as it learns of it."""
    proposals: float
    reads: float
    duration: float
    restore: float = 0.0
    """Volumes that go back to a snapshot (core_restored)."""


THEMES: tuple[dict[str, tuple[float, ...]], ...] = (
    {"change": (6.0,), "wipe": (0.0, 2.0), "newcomer": (1.0,), "duration": (2500.0,)},
    {"change": (6.0,), "wipe": (2.0,), "newcomer": (0.0,), "duration": (2500.0,)},
    {"isolate": (3.0, 6.0), "hint": (3.0,), "crash": (0.5,), "proposals": (100.0,)},
    {"stale": (3.0, 6.0), "flush_max": (10.0, 120.0), "proposals": (40.0, 100.0)},
)
"""What some worlds are about: values to choose from in place of those drawn."""
THEMED = 0.4
CALMED = ("crash", "kill_leader", "partition", "pause", "clock", "transfer", "crash_at_flush")
"""In such a world these happen more rarely, so that they do not drown it."""


def draw_faults(rng: random.Random) -> Faults:
    """Some worlds are calm but for one kind of fault, most have several, some have a theme."""
    drawn = _draw(rng)
    if rng.random() >= THEMED:
        return drawn
    changed: dict[str, float] = {name: getattr(drawn, name) * 0.3 for name in CALMED}
    for name, values in rng.choice(THEMES).items():
        changed[name] = rng.choice(values)
    return drawn._replace(**changed)


def _draw(rng: random.Random) -> Faults:

    def rate(top: float, chance: float = 0.6) -> float:
        return rng.random() * top if rng.random() < chance else 0.0

    return Faults(
        loss=rate(0.2, 0.5),
        duplicate=rate(0.1, 0.5),
        late=rate(0.15, 0.5),
        late_max=rng.choice((5.0, 50.0, 400.0)),
        flush_max=rng.choice((1.0, 1.0, 10.0, 120.0)),
        crash=rate(3.0),
        kill_leader=rate(2.5, 0.4),
        partition=rate(3.0),
        pause=rate(1.5, 0.3),
        clock=rate(2.0, 0.3),
        isolate=rate(2.0, 0.4),
        hint=rate(3.0, 0.3),
        transfer=rate(2.0, 0.3),
        truncate=rate(5.0, 0.5),
        wipe=rate(2.0, 0.4),
        change=rate(2.0, 0.4),
        crash_at_flush=rate(0.03, 0.3),
        stale=rate(2.0, 0.3),
        newcomer=rate(0.7, 0.3),
        proposals=rng.choice((15.0, 40.0, 100.0)),
        reads=rng.choice((5.0, 20.0, 40.0)),
        duration=rng.choice((800.0, 1500.0, 2500.0)),
    )


def draw_geometry(rng: random.Random) -> tuple[int, int]:
    """(k, m) with 1 <= k + m <= 9; three and five nodes more often than others."""
    size = rng.choice((1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7, 9))
    parity = min(size - 1, rng.choice((size // 2, (size - 1) // 2, (size - 1) // 2, 1, 0)))
    return size - parity, parity


def draw_options(rng: random.Random) -> ReplicaOptions:
    """Small limits, so that they are met."""
    return ReplicaOptions(
        tick=20,
        heartbeat=40,
        election_min=160,
        election_max=rng.choice((320, 480)),
        retry=60,
        resend=100,
        resend_max=400,
        read_timeout=200,
        recovery_timeout=1000,
        queue_commands=64,
        batch_commands=rng.choice((1, 4, 64)),
        batch_bytes=256,
        window_slots=rng.choice((2, 8, 64)),
        window_bytes=rng.choice((256, 4096)),
        message_bytes=rng.choice((64, 1024)),
        inflight_bytes=rng.choice((1024, 8192)),
        ahead_slots=128,
        apply_slots=rng.choice((1, 4, 64)),
        retain_slots=rng.choice((0, 3, 50)),
        retain_bytes=rng.choice((0, 300, 8192)),
        read_rounds=rng.choice((1, 4)),
    )


def draw_change(rng: random.Random, configuration: Configuration, wide: bool) -> tuple[int, int]:
    """(k, m) of a neighbouring layout: n grows or shrinks by one, or only m changes; of any
    layout if `wide` (5 to 6 to 3 nodes)."""
    size = configuration.size + rng.choice((-1, 0, 1))
    if wide:
        size = rng.randint(1, 9)
    size = min(9, max(1, size))
    parity = rng.randint(0, size - 1)
    return size - parity, parity
