"""How well the data of this node are: what is missing, rotten, under-coded or lost, and what is
being done about it. Plain data for the status page, the admin door and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.data.losses import Lost

if TYPE_CHECKING:
    from distkv.member.seat import Seat


def lost(seat: Seat, limit: int) -> list[Lost]:
    """Values of which more shards are gone than their code bears, the oldest news first."""
    return seat.data.losses.listing(limit)


def lost_count(seat: Seat) -> int:
    """All of them, also those that the list has no room for."""
    return len(seat.data.losses) + seat.data.losses.unlisted


def health_of(seat: Seat) -> dict[str, object]:
    """See the module. Bytes, seconds; None where it is not known yet."""
    data = seat.data
    census = data.restriper.census
    return {
        "shards_missing": data.repairer.missing,
        "shards_corrupt": data.keeper.counters.corrupt,
        "shards_misplaced": data.keeper.counters.misplaced,
        "under_coded": census.records if census.known else None,
        "under_coded_bytes": census.bytes if census.known else None,
        "lost": lost_count(seat),
        "rotten_rows_waiting": len(seat.healer.rotten),
        "repair": repair_of(seat),
        "restripe": restripe_of(seat),
        "scrub": scrub_of(seat),
        "background_rate": round(data.pace.rate),
        "background_rate_max": round(data.pace.most),
    }


def repair_of(seat: Seat) -> dict[str, object]:
    """Rebuilding the own shards. `wire_per_byte`: fetched for each byte rebuilt."""
    repairer, now = seat.data.repairer, seat.kernel.now
    progress = repairer.progress
    built = progress.rebuilt_bytes
    return {
        "done": progress.rebuilt,
        "done_bytes": built,
        "to_do_bytes": repairer.missing_bytes,
        "rate": round(progress.meter.rate(now)),
        "seconds_left": repairer.seconds_left,
        "unrepairable": progress.unrepairable,
        "wire_per_byte": round(progress.fetched_bytes / built, 3) if built else None,
        "passes": progress.passes,
    }


def restripe_of(seat: Seat) -> dict[str, object]:
    """Coding values anew: `done` by this node, `to_do` of the whole cluster."""
    restriper, now = seat.data.restriper, seat.kernel.now
    census, progress = restriper.census, restriper.progress
    return {
        "done": progress.done,
        "done_bytes": progress.done_bytes,
        "to_do": census.records if census.known else None,
        "to_do_bytes": census.bytes if census.known else None,
        "rate": round(census.meter.rate(now)),
        "seconds_left": restriper.seconds_left,
        "failed": progress.failed,
    }


def scrub_of(seat: Seat) -> dict[str, object]:
    """Reading all rows again: `share` of the round under way; rotten rows found, by
    table (FRAMING: damaged places of the engine's files besides rows)."""
    progress, healer = seat.data.scrubber.progress, seat.healer
    return {
        "rounds": progress.rounds,
        "began_ms": progress.began_ms,
        "share": round(progress.share, 4),
        "done_bytes": progress.done_bytes,
        "rows": progress.rows,
        "rotten": dict(progress.rotten),
        "rotten_met": dict(healer.found),
        "mended": healer.mended + progress.mended,
        "rows_taken": healer.rows_taken,
        "states_taken": healer.states_taken,
    }
