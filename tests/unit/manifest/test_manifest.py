"""The DistKVCluster manifest: what it takes, and what it says of what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distkv.config.schema import TuningSections
from distkv.manifest import API_VERSION, KIND, ClusterSpec, ManifestError, cluster_of, read
from distkv.manifest.reading import parse

EXAMPLES = Path(__file__).resolve().parents[3] / "hack" / "examples"


def manifest(spec: object, name: str = "a") -> dict[str, object]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_valid(path: Path) -> None:
    assert read(path).spec.nodes >= 1


def test_the_laptop_example_has_five_nodes() -> None:
    spec = read(EXAMPLES / "laptop.yaml").spec
    assert (spec.data_shards, spec.parity_shards, spec.nodes) == (3, 2, 5)


def test_node_configuration_has_the_names_of_the_configuration_file() -> None:
    spec = parse(
        manifest({"config": {"limits": {"value_bytes_max": "1Mi"}}, "repair": {"rate": "1Mi"}}), "x"
    ).spec
    assert spec.tuning().limits.value_bytes_max == 1048576
    assert spec.tuning().repair.rate == 1048576
    assert parse(manifest({}), "x").spec.tuning() == TuningSections()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"dataShard": 3}, ["spec.dataShard:", "did you mean dataShards?"]),
        ({"dataShards": 9, "parityShards": 5}, ["at most 12, not 14"]),
        ({"dataShards": 0}, ["spec.dataShards: 0 is wrong", "greater than or equal to 1"]),
        ({"parityShards": -1}, ["spec.parityShards: -1 is wrong"]),
        ({"config": {"limits": {"valu": 3}}}, ["spec.config.limits.valu:", "there is no such"]),
        ({"config": {"node": {"ordinal": 3}}}, ["spec.config.node:", "there is no such"]),
        ({"storage": {"size": "much"}}, ["spec.storage.size: 'much' is wrong", '"10Gi"']),
        ({"deletionPolicy": "Keep"}, ["'Retain' or 'Delete'"]),
        ({"podTemplate": {"labels": {"distkv.io/role": "a"}}}, ["is the operator's own"]),
        ({"podTemplate": {"labels": {"team": "a b"}}}, ["spec.podTemplate.labels.team: 'a b'"]),
        ({"podTemplate": {"tolerations": [{"value": "a"}]}}, ["operator Equal needs a key"]),
        (
            {"podTemplate": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
            ["operator Exists takes no value"],
        ),
        (
            {"podTemplate": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}},
            ["effect NoExecute only"],
        ),
        ({"config": {"consensus": {"heartbeat": "1s"}}}, ["config.consensus.election_min must"]),
        ({"repair": {"grace": "1s"}}, ["repair.grace must be at least limits.request_seconds"]),
    ],
)
def test_a_wrong_field_names_itself_and_the_remedy(spec: object, words: list[str]) -> None:
    with pytest.raises(ManifestError) as error:
        parse(manifest(spec), "file here")
    assert str(error.value).startswith("file here: ")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["UPPER", "1st", "a_b", "a" * 41, "", "a-gateway", "a-peers"])
def test_names_that_kubernetes_would_refuse(name: str) -> None:
    with pytest.raises(ManifestError, match=r"metadata\.name"):
        parse(manifest({}, name), "x")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [", "not valid YAML"),
        ("kind: Pod", "exactly one resource of kind DistKVCluster"),
        ("kind: DistKVCluster\n---\nkind: DistKVCluster", "it holds 2"),
        ("kind: DistKVCluster", "apiVersion: is not set"),
        ("kind: DistKVCluster\napiVersion: v1\nmetadata: {name: a}", "'v1' is wrong"),
    ],
)
def test_files_that_are_not_one_manifest(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=word) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read(tmp_path / "missing.yaml")


def test_other_documents_of_the_file_and_the_status_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    cluster = manifest({"dataShards": 1, "parityShards": 0}) | {"status": {"ready": True}}
    path.write_text(f"kind: Namespace\n---\n{json.dumps(cluster)}\n---\n")
    assert read(path).spec.nodes == 1


def test_a_cluster_from_flags() -> None:
    assert cluster_of("local", 4, 3).spec.nodes == 7
    with pytest.raises(ManifestError, match="--data-shards"):
        cluster_of("local", 0, 3)


def test_every_field_of_the_schema_is_described() -> None:
    schema = ClusterSpec.model_json_schema(by_alias=True)

    def check(part: dict[str, object], where: str) -> None:
        properties = part.get("properties", {})
        assert isinstance(properties, dict)
        for name, field in properties.items():
            documented = "description" in field or "$ref" in field or "allOf" in field
            assert documented, f"{where}.{name} has no description"

    check(schema, "spec")
    for name, part in schema["$defs"].items():
        assert part.get("description"), f"{name} has no description"
        check(part, name)
