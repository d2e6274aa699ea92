"""What a node tells Prometheus besides its doors: consensus, transport, storage, shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from distkv.api.process import resident_bytes
from distkv.runtime.data_metrics import data_metrics
from distkv.runtime.driver import Driver
from distkv.runtime.healing_metrics import healing_metrics
from distkv.transport.endpoint import Endpoint

_GAUGES = {
    "applied": "Last applied slot.",
    "chosen": "All slots up to it are chosen and known here.",
    "log_first": "Lowest slot still in the log.",
    "queued_commands": "Commands waiting for a slot (leader).",
    "pending_commands": "Commands of this node's clients without an outcome.",
    "pending_reads": "Reads waiting for a read index.",
    "keys": "Keys.",
    "members_up": "Members that answer, this one included.",
    "shards": "Complete shards held.",
    "shards_bytes": "Bytes of their pieces.",
    "shards_missing": "Shards this node should hold and does not.",
    "repair_bytes_left": "Bytes of missing shards still to be rebuilt here, estimated.",
    "repair_bytes_per_second": "Bytes of shards rebuilt here, of late.",
    "durable": "Every slot up to it is on this node's disk.",
    "shards_pending": "Shards no record names (not yet, or no longer).",
    "memory_in_flight": "Bytes of values being dispersed or gathered.",
}
_COUNTERS = {
    "elections": "Elections this node stood for.",
    "consensus_rounds": "Slots for which it asked the voters to accept an entry (leader).",
    "read_rounds": "Times it asked them whether it still leads, for all reads that waited.",
    "shards_corrupt": "Rotten pieces found.",
    "repair_bytes_done": "Bytes of shards rebuilt here.",
    "turns": "Turns of the loop.",
    "flushes": "Flushes of the disk.",
}


class NodeCollector(Collector):
    """Asks the driver and the endpoint at each scrape."""

    def __init__(self, driver: Driver, endpoint: Endpoint) -> None:
        self._driver = driver
        self._endpoint = endpoint

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known from the first scrape on."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        status = self._driver.status()
        for field, text in _GAUGES.items():
            value = status.get(field)
            if isinstance(value, int):
                yield GaugeMetricFamily(f"distkv_{field}", text, value=value)
        for field, text in _COUNTERS.items():
            value = status.get(field)
            if isinstance(value, int):
                yield CounterMetricFamily(f"distkv_{field}", text, value=value)
        leads = status.get("role") == "leader"
        yield GaugeMetricFamily("distkv_is_leader", "1 while it leads.", value=leads)
        yield GaugeMetricFamily(
            "distkv_disk_full", "1: read-only.", value=self._driver.member.disk_full
        )
        usage = self._driver.engine.usage()
        disk = GaugeMetricFamily("distkv_disk_bytes", "Storage, by kind.", labels=["kind"])
        for kind in usage._fields:
            disk.add_metric([kind], getattr(usage, kind))
        yield disk
        yield GaugeMetricFamily(
            "distkv_resident_bytes", "Memory of the process.", value=resident_bytes()
        )
        yield from _cluster(status.get("cluster_view"))
        if self._driver.member.seat is not None:
            yield from data_metrics(self._driver.member.seat.data)
            yield from healing_metrics(self._driver.member.seat)
        for direction, count in self._endpoint.traffic()._asdict().items():
            text = f"Bytes {direction} in datagrams of peers, their headers below UDP not counted."
            yield CounterMetricFamily(f"distkv_wire_{direction}_bytes", text, value=count)
        yield self._suspicions()
        yield from self._peers()

    def _suspicions(self) -> Metric:
        family = CounterMetricFamily(
            "distkv_suspicions", "What only faulty peers do.", labels=["source", "kind"]
        )
        for (source, kind), entry in self._driver.member.suspicions.entries.items():
            family.add_metric([source, kind], entry.count)
        return family

    def _peers(self) -> Iterator[Metric]:
        numbers: dict[str, GaugeMetricFamily] = {}
        for peer in self._endpoint.statistics():
            for field, value in peer.connection._asdict().items():
                if isinstance(value, int | float):
                    family = numbers.setdefault(
                        field,
                        GaugeMetricFamily(
                            f"distkv_peer_{field}",
                            f"Of the connection there is now: {field}.",
                            labels=["peer"],
                        ),
                    )
                    family.add_metric([str(peer.peer.ordinal)], value)
        yield from numbers.values()


_CLUSTER = {
    "shards_missing": "Shards missing on all members.",
    "under_coded": "Values coded otherwise than the layout wants.",
    "under_coded_bytes": "Bytes of these values.",
    "values_lost": "Values of which too few shards are left.",
    "repair_bytes_left": "Bytes of missing shards on all members, estimated.",
}
_SURVIVES = {
    "available": "So many more nodes may stop, and reads and writes go on.",
    "durable": "So many more disks may be lost, and no acknowledged value is.",
}


def _cluster(view: object) -> Iterator[Metric]:
    """The whole cluster as this node sees it; what is not known is left out."""
    if not isinstance(view, dict):
        return
    for field, text in _CLUSTER.items():
        if view[field] is not None:
            yield GaugeMetricFamily(f"distkv_cluster_{field}", text, value=view[field])
    for field, text in _SURVIVES.items():
        if view["survives"][field] is not None:
            name = f"distkv_cluster_survives_{field}"
            yield GaugeMetricFamily(name, text, value=view["survives"][field])
