"""What the doors count, cheaply, and how Prometheus reads it.

The prometheus-client's own counters cost over a microsecond each; these are plain numbers,
turned into metric families only when somebody scrapes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from distkv.api.budget import MemoryBudget

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the latency buckets, seconds."""

clock = time.perf_counter
"""For durations; finer than an event loop's time."""


class Series:
    """Requests of one kind: how many, how many failed, how long they took."""

    __slots__ = ("buckets", "errors", "name", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def observe(self, seconds: float) -> None:
        """One request ended after `seconds`."""
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1

    @property
    def count(self) -> int:
        """Requests observed."""
        return sum(self.buckets)

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus wants them: (upper bound, requests up to it)."""
        pairs: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.buckets, strict=True):
            total += count
            pairs.append((bound, float(total)))
        return pairs


class DoorMetrics:
    """Counters of one door ("resp", "http", "admin", "link")."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.series: dict[str, Series] = {}
        self.connections = 0
        self.accepted = 0
        self.refused = 0
        """Connections turned away at `connections_max`."""
        self.stalled = 0
        """Connections cut off because the client moved no byte."""
        self.bytes_in = 0
        self.bytes_out = 0

    def kind(self, name: str) -> Series:
        """The series of one kind of request; keep it, so that looking it up costs nothing."""
        series = self.series.get(name)
        if series is None:
            series = self.series[name] = Series(name)
        return series


class DoorCollector(Collector):
    """Exports doors and the memory budget they share."""

    def __init__(self, doors: Iterable[DoorMetrics], budget: MemoryBudget | None = None) -> None:
        self._doors = list(doors)
        self._budget = budget

    def add(self, door: DoorMetrics) -> None:
        """One more door."""
        self._doors.append(door)

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known from the first scrape on."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families; called by the registry on a scrape."""
        yield from self._requests()
        yield self._gauge("connections", "Open client connections.", "connections")
        yield self._counter("connections_accepted", "Connections taken.", "accepted")
        yield self._counter("connections_refused", "Turned away at connections_max.", "refused")
        yield self._counter("connections_stalled", "Cut off for moving no byte.", "stalled")
        yield self._counter("received_bytes", "Bytes from clients.", "bytes_in")
        yield self._counter("sent_bytes", "Bytes to clients.", "bytes_out")
        if self._budget is not None:
            yield GaugeMetricFamily(
                "distkv_door_memory_bytes", "Memory in flight.", value=self._budget.used
            )
            yield GaugeMetricFamily(
                "distkv_door_memory_limit_bytes",
                "Limit memory_in_flight_max.",
                value=self._budget.limit,
            )

    def _requests(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "distkv_request_seconds", "Time from parsed to answered.", labels=["door", "request"]
        )
        errors = CounterMetricFamily(
            "distkv_request_errors", "Requests answered with an error.", labels=["door", "request"]
        )
        for door in self._doors:
            for series in door.series.values():
                buckets = series.cumulative()
                if buckets[-1][1]:
                    labels = [door.door, series.name]
                    durations.add_metric(labels, buckets, series.seconds)
                    errors.add_metric(labels, series.errors)
        yield durations
        yield errors

    def _gauge(self, name: str, text: str, field: str) -> Metric:
        family = GaugeMetricFamily(f"distkv_door_{name}", text, labels=["door"])
        for door in self._doors:
            family.add_metric([door.door], getattr(door, field))
        return family

    def _counter(self, name: str, text: str, field: str) -> Metric:
        family = CounterMetricFamily(f"distkv_door_{name}", text, labels=["door"])
        for door in self._doors:
            family.add_metric([door.door], getattr(door, field))
        return family


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(registry: CollectorRegistry) -> bytes:
    """The text a Prometheus server scrapes."""
    return generate_latest(registry)
