"""A changed configuration file: what a running node takes over, and what it only reports."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from distkv.config import Config
from distkv.config.live import LIVE_FIELDS, Source, changed_fields
from distkv.runtime.live import LiveConfig


class Node:
    """What it was told, in order."""

    def __init__(self, path: Path) -> None:
        self.told: list[tuple[str, Config]] = []
        self.source = Source("any", path, {}, ("limits.pending_max=50",))
        self.live = LiveConfig(
            self.source,
            self.source.load(),
            {field: self.taker(field) for field in LIVE_FIELDS},
        )

    def taker(self, field: str):  # type: ignore[no-untyped-def]
        return lambda config: self.told.append((field, config))

    @property
    def fields(self) -> list[str]:
        return [field for field, _ in self.told]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text('[peers]\naddresses = ["a:1", "b:2"]\n')
    return path


def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    node = Node(path)
    node.live.check()
    assert node.told == []


def test_live_fields_are_taken_over_once(path: Path) -> None:
    node = Node(path)
    path.write_text('[peers]\naddresses = ["a:1", "b:2", "c:3"]\n[repair]\nrate = "1 MiB"\n')
    node.live.check()
    node.live.check()
    assert node.fields == ["repair.rate", "peers.addresses"]
    assert len(node.live.config.peers.addresses) == 3
    path.write_text('[peers]\naddresses = ["a:1", "b:2", "c:3"]\n')
    node.live.check()
    assert node.fields[2:] == ["repair.rate"]


def test_other_fields_wait_for_a_restart(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(path)
    path.write_text(path.read_text() + '[limits]\nkey_bytes_max = "2 KiB"\npending_max = 70\n')
    with caplog.at_level(logging.WARNING):
        node.live.check()
    assert node.told == []
    assert "only after a restart: limits.key_bytes_max" in caplog.text
    assert "pending_max" not in caplog.text, "the flag still wins"


def test_a_file_that_is_refused_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(path)
    good = path.read_text()
    path.write_text("[peers]\naddresses = [3]\n")
    node.live.check()
    assert node.told == []
    assert "peers.addresses" in caplog.text
    path.write_text(good + '[logging]\nlevel = "debug"\n')
    node.live.check()
    assert node.fields == ["logging.level"]


def test_a_replaced_link_counts_as_a_change(tmp_path: Path) -> None:
    """As the kubelet does it: file -> ..data/file, ..data -> a directory, replaced at once."""
    for name, rate in (("one", "1 MiB"), ("two", "2 MiB")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "node.toml").write_text(f'[repair]\nrate = "{rate}"\n')
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "node.toml").symlink_to("data/node.toml")
    node = Node(tmp_path / "node.toml")
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "data")
    node.live.check()
    assert node.fields == ["repair.rate"]


def test_a_file_that_is_gone_for_a_moment_changes_nothing(path: Path) -> None:
    node = Node(path)
    path.unlink()
    node.live.check()
    assert node.told == []
    assert list(changed_fields(node.live.config, node.source._replace(path=None).load())) == [
        "peers.addresses"
    ]
