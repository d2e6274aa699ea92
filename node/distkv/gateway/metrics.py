"""What a gateway tells Prometheus besides its doors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from distkv.api.link.client import LinkClient
from distkv.api.process import resident_bytes
from distkv.gateway.store import GatewayStore

Value = Callable[[LinkClient], float]


class GatewayCollector(Collector):
    """Asks the store at each scrape."""

    def __init__(self, store: GatewayStore) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known from the first scrape on."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        store = self._store
        yield GaugeMetricFamily("distkv_resident_bytes", "Memory in RAM.", value=resident_bytes())
        yield CounterMetricFamily(
            "distkv_gateway_retries", "Tries of requests after their first.", value=store.retries
        )
        yield CounterMetricFamily(
            "distkv_gateway_sessions_opened", "Sessions opened.", value=store.sessions_opened
        )
        yield GaugeMetricFamily(
            "distkv_gateway_retained_bytes",
            "Bytes of values kept until their put is answered.",
            value=store.retained.used,
        )
        yield self._by_node("serving", "1: the node takes requests.", lambda link: link.serving)
        yield self._by_node("connected", "1: the link is there.", lambda link: link.connected)
        yield self._by_node("in_flight", "Requests under way.", lambda link: link.in_flight)
        yield self._by_node("ping_seconds", "Smoothed.", lambda link: link.latency)

    def _by_node(self, name: str, text: str, value: Value) -> Metric:
        family = GaugeMetricFamily(f"distkv_gateway_node_{name}", text, labels=["node"])
        for link in self._store.nodes.links:
            family.add_metric([link.address], value(link))
        return family
