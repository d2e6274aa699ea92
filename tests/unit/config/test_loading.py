"""File, environment and flags; every refusal names field, place and remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distkv.config import Address, Config, ConfigError, load
from distkv.config.explain import explain
from distkv.config.loading import section_fields
from distkv.config.schema import GENERAL, broken_relations

NODE = {
    "node": {"ordinal": 1},
    "cluster": {"id": "ab" * 16},
    "peers": {"addresses": ["10.0.0.1:7400", "10.0.0.2:7400"]},
    "keys": {"insecure": True},
    "admin": {"token_file": "token"},
}


def problems(error: pytest.ExceptionInfo[ConfigError]) -> dict[str, str]:
    return {problem.field: str(problem) for problem in error.value.problems}


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_defaults_fit_together() -> None:
    assert list(broken_relations(Config(), "any")) == []


def test_a_node_is_loaded_from_json_and_toml_alike(tmp_path: Path) -> None:
    toml = tmp_path / "node.toml"
    toml.write_text(
        f"[node]\nordinal = 1\n[cluster]\nid = '{'ab' * 16}'\n"
        "[peers]\naddresses = ['10.0.0.1:7400', '10.0.0.2:7400']\n"
        "[keys]\ninsecure = true\n[admin]\ntoken_file = 'token'\n"
    )
    config = load("node", write(tmp_path / "node.json", NODE))
    assert config == load("node", toml)
    assert config.ordinal == 1
    assert config.cluster_id == b"\xab" * 16
    assert config.peers.addresses[1] == Address("10.0.0.2", 7400)
    assert config.name == "node-1"


def test_flags_win_over_environment_wins_over_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", {"limits": {"pipeline_max": 1, "connections_max": 1}})
    environment = {"DISTKV_LIMITS__PIPELINE_MAX": "2", "DISTKV_LIMITS__SCAN_COUNT_MAX": "2"}
    config = load("any", file, environment, ["limits.scan_count_max=3"])
    assert config.limits.connections_max == 1
    assert config.limits.pipeline_max == 2
    assert config.limits.scan_count_max == 3


def test_sizes_durations_and_lists_as_people_write_them() -> None:
    config = load(
        "any",
        flags=[
            "dispersal.inline_max=2 KiB",
            "limits.value_bytes_max=1MiB",
            "consensus.heartbeat=30ms",
            "limits.request_seconds=2s",
            "repair.grace=5m",
            "gateway.nodes=a:1, [::1]:2",
        ],
    )
    assert config.dispersal.inline_max == 2048
    assert config.limits.value_bytes_max == 1048576
    assert config.consensus.heartbeat == pytest.approx(0.03)
    assert config.limits.request_seconds == 2.0
    assert config.repair.grace == 300.0
    assert config.gateway.nodes == (Address("a", 1), Address("::1", 2))
    assert [str(node) for node in config.gateway.nodes] == ["a:1", "[::1]:2"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("limits.value_bytes_max=12 parsecs", ["'12 parsecs'", '"4 KiB"']),
        ("limits.value_bytes_max=1TiB", ["less than or equal to"]),
        ("consensus.heartbeat=soon", ["'soon'", '"250ms"']),
        ("consensus.heartbeat=0", ["greater than or equal to"]),
        ("listen.resp=6379", ["'6379'", '"host:port"']),
        ("listen.resp=a:99999", ["host:port"]),
        ("cluster.id=abc", ["'abc'"]),
        ("storage.engine=sqlite", ["'files'", "'rocksdb'"]),
        ("keys.insecure=perhaps", ["'perhaps'"]),
        ("limits.pipelinemax=3", ["did you mean limits.pipeline_max?"]),
        ("limits.heartbeat=3", ["did you mean consensus.heartbeat?"]),
        ("limit.pipeline_max=3", ["did you mean 'limits'?"]),
        ("limits.frobnicate=3", ["section limits has:", "distkv config explain"]),
    ],
)
def test_a_wrong_field_names_itself_its_place_and_the_remedy(flag: str, words: list[str]) -> None:
    field, _, value = flag.partition("=")
    variable = "DISTKV_" + field.upper().replace(".", "__")
    with pytest.raises(ConfigError) as by_flag:
        load("any", flags=[flag])
    with pytest.raises(ConfigError) as by_variable:
        load("any", environment={variable: value})
    assert problems(by_flag).keys() == problems(by_variable).keys() == {field}
    assert f"flag --set {field}" in str(by_flag.value)
    assert f"environment variable {variable}" in str(by_variable.value)
    for word in words:
        assert word in str(by_flag.value)
        assert word in str(by_variable.value)


def test_a_wrong_field_of_a_file_names_the_file_and_the_key(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.json",
        {"limits": {"pipelin_max": 1, "scan_count_max": 0}, "limits2": {}, "node": 3},
    )
    with pytest.raises(ConfigError) as error:
        load("any", file)
    found = problems(error)
    assert found.keys() == {"limits.pipelin_max", "limits.scan_count_max", "limits2", "node"}
    assert f"file {file}, key limits.scan_count_max" in found["limits.scan_count_max"]
    assert "did you mean 'limits'?" in found["limits2"]
    assert "[node]" in found["node"]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("c.json", "{", "not valid JSON"),
        ("c.toml", "[a", "not valid TOML"),
        ("c.json", "[]", "object of sections"),
        ("c.toml", "\udcff", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, text: str, word: str) -> None:
    path = tmp_path / name
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=word) as error:
        load("any", path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load("any", tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("left_out", "field"),
    [
        ("node", "node.ordinal"),
        ("cluster", "cluster.id"),
        ("peers", "peers.addresses"),
        ("keys", "keys.files"),
        ("admin", "admin.token_file"),
    ],
)
def test_what_a_node_needs(tmp_path: Path, left_out: str, field: str) -> None:
    content = {name: fields for name, fields in NODE.items() if name != left_out}
    path = write(tmp_path / "c.json", content)
    load("any", path)
    with pytest.raises(ConfigError) as error:
        load("node", path)
    assert problems(error).keys() == {field}
    assert "DISTKV_" + field.upper().replace(".", "__") in str(error.value)


def test_a_node_without_an_address_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", NODE | {"node": {"ordinal": 2}})
    with pytest.raises(ConfigError, match="lists 2 nodes, so ordinals end at 1"):
        load("node", path)


def test_a_key_and_insecure_exclude_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", NODE | {"keys": {"insecure": True, "files": ["k"]}})
    with pytest.raises(ConfigError, match="exactly one must be set"):
        load("node", path)


def test_a_gateway_needs_nodes_and_no_identity() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.nodes"):
        load("gateway")
    assert load("gateway", flags=["gateway.nodes=a:7401"]).name == "gateway"


BREAKING = {
    "consensus.election_min": ["consensus.heartbeat=0.2"],
    "consensus.election_max": ["consensus.election_max=0.31"],
    "consensus.batch_bytes": ["consensus.batch_bytes=16KiB", "dispersal.inline_max=16KiB"],
    "consensus.window_bytes": ["consensus.window_bytes=64KiB"],
    "transport.dead_after": ["transport.ping_interval=0.3"],
    "dispersal.inline_max": ["limits.value_bytes_max=1KiB"],
    "limits.values_in_flight_max": ["limits.values_in_flight_max=8MiB"],
    "limits.command_bytes_max": ["limits.command_bytes_max=128MiB"],
    "limits.request_seconds": ["consensus.election_max=6", "consensus.election_min=4"],
    "limits.request_seconds_max": ["limits.request_seconds_max=9"],
    "repair.grace": ["repair.grace=1"],
}


@pytest.mark.parametrize("relation", GENERAL, ids=lambda relation: relation.field)
def test_every_relation_is_checked_and_explained(relation: object) -> None:
    field = relation.field  # type: ignore[attr-defined]
    with pytest.raises(ConfigError) as error:
        load("any", flags=BREAKING[field])
    found = problems(error)
    assert list(found) == [field]
    assert "{" not in found[field], "a place in the text was not filled in"


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Config().limits.pipeline_max = 3  # type: ignore[misc]


def test_variables_of_others_are_left_alone() -> None:
    environment = {"DISTKV_PORT_6379_TCP": "tcp://x", "DISTKV_SERVER": "x", "OTHER__FIELD": "1"}
    assert load("any", environment=environment) == Config()


def test_a_variable_with_one_underscore_too_few_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean DISTKV_LIMITS__KEY_BYTES_MAX") as refusal:
        load("any", environment={"DISTKV_LIMITS_KEY_BYTES_MAX": "1KiB"})
    assert "environment variable DISTKV_LIMITS_KEY_BYTES_MAX" in str(refusal.value)


def test_every_field_is_explained() -> None:
    explained = {entry.field: entry for entry in explain()}
    known = {f"{section}.{name}" for section, names in section_fields().items() for name in names}
    assert explained.keys() == known
    for entry in explained.values():
        assert entry.description, entry.field
        assert entry.description.endswith("."), entry.field
        assert "distkv." not in entry.type, entry.field
        json.dumps(entry.default)


@pytest.mark.parametrize("entry", explain(), ids=lambda entry: entry.field)
def test_every_default_can_be_given_as_text(entry: object) -> None:
    field, default = entry.field, entry.default  # type: ignore[attr-defined]
    if default is None:
        return
    text = ",".join(default) if isinstance(default, list) else str(default)
    assert load("any", flags=[f"{field}={text}"]) == Config()
