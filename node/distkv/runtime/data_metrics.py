"""What Prometheus is told of dispersing and gathering values."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from distkv.data.plane import DataPlane


def data_metrics(plane: DataPlane) -> Iterator[Metric]:
    """All families."""
    written, read = plane.disperser.counters, plane.reader
    dispersals = CounterMetricFamily(
        "distkv_dispersals", "Tries to disperse a value, by its code.", labels=["data_shards"]
    )
    for data_shards, count in sorted(written.by_data_shards.items()):
        dispersals.add_metric([str(data_shards)], count)
    yield dispersals
    counters = {
        "dispersals_hedged": ("Tries begun because members were too slow.", written.hedged),
        "dispersals_abandoned": ("Tries given up.", written.abandoned),
        "dispersed_bytes": ("Bytes of pieces sent, own ones included.", written.piece_bytes),
        "gathers_hedged": ("Requests for pieces after which others were asked.", read.hedged),
        "gathered_bytes": ("Bytes of pieces fetched, for reads and repair.", read.fetched_bytes),
    }
    for name, (text, value) in counters.items():
        yield CounterMetricFamily(f"distkv_{name}", text, value=value)
    yield GaugeMetricFamily(
        "distkv_gathering_bytes", "Bytes of pieces asked for and not here.", value=read.under_way
    )
