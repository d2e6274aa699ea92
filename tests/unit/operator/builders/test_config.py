"""The configuration files: what the processes' own loader says of them; what needs a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distkv.config import Config, load
from distkv_operator import names
from distkv_operator.builders import config_map, deployment, fingerprint

from .support import CLUSTER_ID, cluster, context


def loaded(tmp_path: Path, role: str, **spec: Any) -> Config:
    wanted = cluster(**spec)
    content = config_map(wanted, context(wanted))["data"][f"{role}.toml"]
    path = tmp_path / f"{role}.toml"
    path.write_text(content)
    environment = {"DISTKV_NODE__ORDINAL": "1"} if role == "node" else {}
    return load(role, path, environment)


def test_a_node_takes_its_file(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "node",
        config={"limits": {"value_bytes_max": "16Mi"}, "logging": {"format": "json"}},
        repair={"rate": "1Mi"},
        storage={"engine": "rocksdb"},
    )
    assert found.cluster.id == CLUSTER_ID
    assert [str(a) for a in found.peers.addresses] == [
        f"store-{i}.store-peers:7400" for i in range(5)
    ]
    assert found.limits.value_bytes_max == 16 * 1024 * 1024
    assert found.repair.rate == 1024 * 1024
    assert found.logging.format == "json"
    assert found.storage.engine == "rocksdb"
    assert found.listen.admin.host == "0.0.0.0"


def test_a_gateway_takes_its_file_and_has_no_key(tmp_path: Path) -> None:
    found = loaded(tmp_path, "gateway", config={"limits": {"value_bytes_max": "16Mi"}})
    assert [str(a) for a in found.gateway.nodes] == [
        f"store-{i}.store-peers:7401" for i in range(5)
    ]
    assert found.limits.value_bytes_max == 16 * 1024 * 1024
    assert not found.keys.files
    assert found.admin.token_file is None


def gateway_mark(changes: dict[str, Any] | None = None, **spec: Any) -> str:
    wanted = cluster(**spec)
    template = deployment(wanted, context(wanted, **(changes or {})))["spec"]["template"]
    found: str = template["metadata"]["annotations"][names.CONFIG_ANNOTATION]
    return found


def test_gateways_are_replaced_for_limits_but_not_for_more_nodes() -> None:
    assert gateway_mark(config={"limits": {"value_bytes_max": "16Mi"}}) != gateway_mark()
    assert gateway_mark({"replicas": 7}) == gateway_mark()
    assert gateway_mark(config={"consensus": {"heartbeat": "70ms"}}) == gateway_mark()


def mark(changes: dict[str, Any] | None = None, **spec: Any) -> str:
    wanted = cluster(**spec)
    return fingerprint(wanted, context(wanted, **(changes or {})))


@pytest.mark.parametrize(
    "spec",
    [
        {"config": {"limits": {"value_bytes_max": "16Mi"}}},
        {"config": {"consensus": {"heartbeat": "70ms"}}},
        {"repair": {"grace": "40s"}},
        {"resources": {"limits": {"memory": "3Gi"}}},
        {"podTemplate": {"labels": {"team": "a"}}},
    ],
)
def test_what_a_running_node_cannot_take_over_replaces_pods(spec: dict[str, Any]) -> None:
    assert mark(**spec) != mark()


def test_another_image_replaces_pods() -> None:
    assert mark({"image": "other"}) != mark()


@pytest.mark.parametrize(
    "spec",
    [
        {"config": {"logging": {"level": "debug"}}},
        {"gateway": {"replicas": 5}},
        {"storage": {"size": "20Gi"}},
        {"topology": {"hosts": "Required"}},
        {"monitoring": {"interval": "5s"}},
        {"deletionPolicy": "Delete"},
        {"service": {"type": "NodePort"}},
        {"paused": True},
        {"dataShards": 4},
    ],
)
def test_what_nodes_can_live_without_restarts_nothing(spec: dict[str, Any]) -> None:
    assert mark(**spec) == mark()


def test_the_same_value_written_otherwise_restarts_nothing() -> None:
    assert mark(repair={"grace": "60s"}) == mark(repair={"grace": "1m"})
