"""What may go wrong in a world of whole nodes, and how its cluster is set up: drawn per seed."""

from __future__ import annotations

import random
from typing import NamedTuple

from distkv.core.options import ReplicaOptions
from distkv.member.options import MemberOptions


class Faults(NamedTuple):
    """Rates per message, or per second of virtual time; times in seconds."""

    loss: float
    late_max: float
    reset: float
    crash: float
    kill_leader: float
    partition: float
    one_way: float
    slow_disk: float
    full_disk: float
    rot: float
    clock: float
    wipe: float
    crash_at_flush: float
    transfer: float
    echo: float
    """Chance that commands on their way to a leader reach whoever leads a while later, again."""
    duplicate: float
    """This and the following only where the production transport runs: per datagram ..."""
    reorder: float
    corrupt: float
    replay: float
    clog: float
    """... and per second."""
    listener: float
    """Somebody plays again what one machine sent, as it goes down."""
    noise: float
    move: float
    """A machine gets another address."""
    relayout: float
    """The owner wants another layout."""
    slow_repair: float
    """Background work may move so many bytes per second until the faults stop."""
    duration: float


def draw_faults(rng: random.Random, seed: int) -> Faults:
    """Some worlds know few kinds of faults, most have several. `seed`: of `rng`, for what is
    drawn apart, so that worlds without are as ever."""

    def rate(top: float, chance: float = 0.5) -> float:
        return rng.random() * top if rng.random() < chance else 0.0

    return Faults(
        loss=rate(0.1),
        late_max=rng.choice((0.02, 0.1, 0.6)),
        reset=rate(0.004, 0.4),
        crash=rate(0.8),
        kill_leader=rate(0.8, 0.4),
        partition=rate(0.8),
        one_way=rate(0.6, 0.3),
        slow_disk=rate(1.5, 0.4),
        full_disk=rate(0.3, 0.2),
        rot=rate(1.0, 0.3),
        clock=rate(0.5, 0.3),
        wipe=rate(0.4, 0.4),
        crash_at_flush=rate(0.02, 0.3),
        transfer=rate(0.5, 0.2),
        echo=rate(0.3, 0.4),
        duplicate=rate(0.2),
        reorder=rate(0.2),
        corrupt=rate(0.05, 0.4),
        replay=rate(0.1),
        clog=rate(0.5, 0.4),
        listener=rate(0.5, 0.4),
        noise=rate(2.0, 0.3),
        move=rate(0.3, 0.4),
        relayout=0.0,
        slow_repair=draw_slow_repair(seed),
        duration=rng.uniform(4.0, 8.0),
    )


OF_DATAGRAMS = (
    *("duplicate", "reorder", "corrupt", "replay"),
    *("clog", "listener", "noise", "move"),
)
"""Faults that only the production transport can meet."""

CALM = Faults(**dict.fromkeys(Faults._fields, 0.0))


RELAYOUTS = 0.25
"""Share of the worlds whose owner wants other layouts."""


def draw_relayout(rng: random.Random, wanted: bool | None) -> float:
    """Orders per second. `rng`: of layouts alone, so that worlds without are as ever."""
    drawn, rate = rng.random() < RELAYOUTS, rng.choice((0.15, 0.4, 1.0))
    return rate if (drawn if wanted is None else wanted) else 0.0


SLOW_REPAIRS = 0.15
"""Share of the worlds in which repair and coding anew take seconds for a value."""


def draw_slow_repair(seed: int) -> float:
    """Bytes per second, or 0.0."""
    rng = random.Random(f"repair of {seed}")
    return rng.choice((2000.0, 10_000.0, 50_000.0)) if rng.random() < SLOW_REPAIRS else 0.0


def draw_geometry(rng: random.Random) -> tuple[int, int]:
    """(k, m); five nodes with 3+2 most often."""
    if rng.random() < 0.5:
        return 3, 2
    n = rng.randint(1, 9)
    k = rng.randint(1, n)
    return k, n - k


def draw_options(rng: random.Random, real_transport: bool) -> MemberOptions:
    """Small limits, so that they are met; messages that the transport's small lanes take."""
    tick = rng.choice((25, 50))
    small = {
        "batch_bytes": 16 << 10,
        "window_bytes": 64 << 10,
        "message_bytes": 32 << 10,
        "inflight_bytes": 64 << 10,
    }
    return MemberOptions(
        replica=ReplicaOptions(
            tick=tick,
            heartbeat=75 if tick == 25 else 100,
            election_min=300 if tick == 25 else 400,
            election_max=600 if tick == 25 else 800,
            retain_slots=rng.choice((8, 64, 4096)),
            read_timeout=400,
            **(small if real_transport else {}),
        ),
        tick=tick / 1000,
        stripe_bytes=rng.choice((512, 4096, 65536)),
        value_max=1 << 20,
        memory_in_flight=8 << 20,
        stream_above=rng.choice((1 << 20, 1000)),
        grace=rng.choice((2.0, 5.0)),
        grace_bytes=1 << 20,
        repair_pass_every=2.0,
        settle_every=rng.choice((0.3, 2.0)),
        restripe_after=rng.choice((0.0, 1.0)),
        scrub_period=5.0,
        truncate_every=0.3,
    )
