"""What Prometheus reads from the operator."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from distkv_operator.planning.observed import Observed
from distkv_operator.planning.plan import Plan

DURATIONS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """All series; those of a cluster go with it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._calls = Counter(
            "distkv_operator_api_calls",
            "Calls of the Kubernetes API; code 0: nobody answered.",
            ("method", "resource", "code"),
            registry=self.registry,
        )
        self._rounds = Histogram(
            "distkv_operator_reconcile_seconds",
            "Time of one reconcile.",
            ("result",),
            buckets=DURATIONS,
            registry=self.registry,
        )
        self._leading = Gauge(
            "distkv_operator_leading", "1: this operator acts.", registry=self.registry
        )
        gauges = {
            "ready_nodes": "Nodes that serve.",
            "wanted_nodes": "Nodes of the layout.",
            "shards_missing": "Shards that are not where they belong.",
            "failures_survivable": "How many more nodes may go now.",
            "outdated_nodes": "Pods still to be replaced by the roll.",
            "holding": "1: somebody has to decide before anything is done.",
        }
        self._clusters = {
            name: Gauge(
                f"distkv_operator_cluster_{name}",
                text,
                ("namespace", "cluster"),
                registry=self.registry,
            )
            for name, text in gauges.items()
        }

    def called(self, method: str, resource: str, code: int) -> None:
        """A call was answered."""
        self._calls.labels(method, resource, str(code)).inc()

    def reconciled(self, seconds: float, failed: bool) -> None:
        """A reconcile ended."""
        self._rounds.labels("failed" if failed else "ok").observe(seconds)

    def leads(self, leading: bool) -> None:
        """Whether this process holds the Lease."""
        self._leading.set(1 if leading else 0)

    def planned(self, observed: Observed, plan: Plan) -> None:
        """What a reconcile found."""
        values: dict[str, float] = {
            "ready_nodes": sum(1 for state in plan.states if state.votes),
            "wanted_nodes": observed.nodes,
            "shards_missing": sum(state.seat.report.missing or 0 for state in plan.states),
            "failures_survivable": plan.budget.survivable,
            "outdated_nodes": len(plan.rolling.outdated),
            "holding": 1 if plan.formation.holds else 0,
        }
        for name, value in values.items():
            self._clusters[name].labels(observed.namespace, observed.name).set(value)

    def forget(self, namespace: str, name: str) -> None:
        """A cluster is gone, and its series with it."""
        for gauge in self._clusters.values():
            gauge.remove(namespace, name)

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is asked for when Prometheus comes."""
        Gauge(f"distkv_operator_{name}", text, registry=self.registry).set_function(value)
