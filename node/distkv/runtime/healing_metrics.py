"""What Prometheus is told of repair, re-striping, scrubbing and loss."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from distkv.member.health import health_of
from distkv.member.seat import Seat

_GAUGES = {
    "under_coded": "Records coded otherwise than the newest layout wants.",
    "under_coded_bytes": "Bytes of their values.",
    "lost": "Values of which more shards are gone than their code bears.",
    "rotten_rows_waiting": "Rows of metadata that a peer's state is to replace.",
    "background_rate": "Bytes per second that background work may move now.",
}
_WORK = {
    "repair": "Rebuilding the shards of this node",
    "restripe": "Coding values anew",
}


def healing_metrics(seat: Seat) -> Iterator[Metric]:
    """All families."""
    health = health_of(seat)
    for field, text in _GAUGES.items():
        value = health[field]
        if isinstance(value, int | float):
            yield GaugeMetricFamily(f"distkv_{field}", text, value=value)
    yield CounterMetricFamily(
        "distkv_shards_misplaced",
        "Shards found where their record does not put them.",
        value=_number(health["shards_misplaced"]),
    )
    for name, text in _WORK.items():
        work = health[name]
        assert isinstance(work, dict)
        yield CounterMetricFamily(f"distkv_{name}_values", f"{text}: done.", value=work["done"])
        yield CounterMetricFamily(
            f"distkv_{name}_bytes", f"{text}: bytes done.", value=work["done_bytes"]
        )
        for field in ("to_do_bytes", "rate", "seconds_left"):
            if name == "restripe" and work[field] is not None:
                yield GaugeMetricFamily(
                    f"distkv_{name}_{field}", f"{text}: {field}.", value=work[field]
                )
    fetched = seat.data.repairer.progress.fetched_bytes
    yield CounterMetricFamily(
        "distkv_repair_fetched_bytes", "Bytes of pieces fetched to rebuild others.", value=fetched
    )
    yield from _scrub(health["scrub"])


def _scrub(scrub: object) -> Iterator[Metric]:
    assert isinstance(scrub, dict)
    yield GaugeMetricFamily(
        "distkv_scrub_progress", "Share of the scrub round under way, 0 to 1.", value=scrub["share"]
    )
    yield CounterMetricFamily(
        "distkv_scrub_rounds", "Times that everything was read again.", value=scrub["rounds"]
    )
    yield CounterMetricFamily("distkv_scrub_rows", "Rows read again.", value=scrub["rows"])
    rotten = CounterMetricFamily(
        "distkv_rotten_rows", "Rows that failed their checksum.", labels=["found", "table"]
    )
    for found, field in (("scrub", "rotten"), ("met", "rotten_met")):
        for table, count in sorted(scrub[field].items()):
            rotten.add_metric([found, table], count)
    yield rotten
    yield CounterMetricFamily(
        "distkv_rows_taken", "Damaged rows taken from a peer.", value=scrub["rows_taken"]
    )
    yield CounterMetricFamily(
        "distkv_states_taken", "Times a damaged state was taken anew.", value=scrub["states_taken"]
    )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
