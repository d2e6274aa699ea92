"""Specifications drawn at random: whatever the API server would take."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SPREADS = st.sampled_from(["Required", "Preferred", "Ignored"])
SERVICES = st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])
KEYS = st.from_regex(r"\A[a-z]{1,8}\.example/[a-z]{1,8}\Z")
LABELS = st.dictionaries(KEYS, st.from_regex(r"\A[a-z0-9]{0,10}\Z"), max_size=3)
AMOUNTS = st.fixed_dictionaries(
    {},
    optional={"memory": st.sampled_from(["1Gi", "2Gi", 4294967296]), "cpu": st.just("500m")},
)
RESOURCES = st.fixed_dictionaries({}, optional={"requests": AMOUNTS, "limits": AMOUNTS})
TOLERATIONS = st.lists(
    st.sampled_from(
        [
            {"operator": "Exists"},
            {"key": "example/a", "value": "b", "effect": "NoSchedule"},
            {"key": "c", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
        ]
    ),
    max_size=2,
)
OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "labels": LABELS,
        "annotations": LABELS,
        "nodeSelector": LABELS,
        "tolerations": TOLERATIONS,
        "priorityClassName": st.just("high"),
        "imagePullPolicy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
        "imagePullSecrets": st.just(["registry"]),
    },
)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "limits": st.fixed_dictionaries({}, optional={"value_bytes_max": st.just("16Mi")}),
        "logging": st.fixed_dictionaries({"level": st.sampled_from(["debug", "info"])}),
        "consensus": st.fixed_dictionaries({"heartbeat": st.sampled_from(["50ms", "75ms"])}),
    },
)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A specification, of one to twelve nodes."""
    k = draw(st.integers(1, 12))
    found: dict[str, Any] = {"dataShards": k, "parityShards": draw(st.integers(0, 12 - k))}
    optional = {
        "image": st.just("registry.example/distkv:2"),
        "storage": st.fixed_dictionaries(
            {},
            optional={
                "size": st.sampled_from(["1Gi", 1073741824]),
                "className": st.just("fast"),
                "engine": st.sampled_from(["files", "rocksdb"]),
            },
        ),
        "resources": RESOURCES,
        "topology": st.fixed_dictionaries({"zones": SPREADS, "hosts": SPREADS}),
        "gateway": st.fixed_dictionaries(
            {"replicas": st.integers(0, 3)},
            optional={
                "serviceType": SERVICES,
                "serviceAnnotations": LABELS,
                "resources": RESOURCES,
            },
        ),
        "service": st.fixed_dictionaries({"type": SERVICES, "annotations": LABELS}),
        "config": CONFIG,
        "repair": st.fixed_dictionaries({"rate": st.sampled_from(["1Mi", "2Mi"])}),
        "deletionPolicy": st.sampled_from(["Retain", "Delete"]),
        "paused": st.booleans(),
        "monitoring": st.fixed_dictionaries({"enabled": st.booleans(), "labels": LABELS}),
        "networkPolicy": st.fixed_dictionaries(
            {
                "enabled": st.booleans(),
                "clientNamespaces": st.lists(st.sampled_from("abc"), unique=True),
            }
        ),
        "podTemplate": OVERRIDES,
    }
    return {**found, **draw(st.fixed_dictionaries({}, optional=optional))}
