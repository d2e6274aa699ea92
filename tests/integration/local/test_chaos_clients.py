"""The clients and verdicts of hack/chaos on real processes: honest nodes pass, liars fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import mischief, workload
from chaos.record import Record, load
from chaos.verdicts import Verdict, linearizable, nothing_lost
from integration.local.cluster import PATIENCE_SECONDS, Cluster, environment, until

from distkv.local.ports import HOST

ACKNOWLEDGED = 150
"""Operations to see before, between and after the faults."""


def config(cluster: Cluster, folder: Path) -> dict[str, object]:
    plan = cluster.plan
    doors = [["g", plan.gateway_resp, plan.gateway_http]]
    for ordinal in range(cluster.k + cluster.m):
        ports = plan.node(ordinal)
        doors.append([str(ordinal), ports.resp, ports.http])
    return {
        "seed": 11,
        "doors": [[name, f"{HOST}:{resp}", f"{HOST}:{http}"] for name, resp, http in doors],
        "history": str(folder / "history"),
        "stop": str(folder / "stop"),
        "done": str(folder / "done"),
        "seconds_max": 5 * PATIENCE_SECONDS,
        "key_seconds": 6,
        "pace_seconds": 0.05,
        "rounds": 1,
        "more_of_gateway": 1,
    }


def record_of(cluster: Cluster, folder: Path) -> Record:
    """A run in which one node is killed and comes back."""
    path = folder / "config.json"
    path.write_text(json.dumps(config(cluster, folder)))
    history = folder / "history"
    command = [sys.executable, str(Path(workload.__file__)), "run", str(path)]
    clients = subprocess.Popen(command, env=environment())

    def more() -> None:
        seen = len(history.read_text().splitlines()) if history.exists() else 0
        wanted = seen + ACKNOWLEDGED
        until("operations", lambda: len(history.read_text().splitlines()) > wanted)

    try:
        until("the clients", history.exists)
        more()
        cluster.local("kill", "1")
        more()
        cluster.local("start", "1")
        more()
        (folder / "stop").touch()
        until("the clients to end", (folder / "done").exists)
    finally:
        clients.kill()
        clients.wait()
    until("node 1", lambda: cluster.node(1)["serving"])
    subprocess.run([*command[:-2], "final", str(path)], env=environment(), check=True, timeout=120)
    return load(history)


def verdicts(record: Record) -> list[Verdict]:
    return [nothing_lost(record), linearizable(record)]


def test_honest_nodes_pass(make: Callable[[int, int], Cluster], tmp_path: Path) -> None:
    cluster = make(2, 1)
    cluster.up()
    record = record_of(cluster, tmp_path)
    assert [verdict.detail for verdict in verdicts(record) if not verdict.good] == []
    assert record.final_keys


@pytest.mark.parametrize("kind", mischief.KINDS)
def test_nodes_that_lie_are_found_out(
    make: Callable[[int, int], Cluster],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """They read a small module at their start, as those of a patched image do."""
    start = (
        f"import sys; sys.path.append({os.path.dirname(mischief.__file__)!r}); import mischief\n"
    )
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"{start}mischief.begin({kind!r})\n")
    monkeypatch.syspath_prepend(str(site))
    cluster = make(2, 1)
    cluster.up()
    said = [
        verdict.detail
        for verdict in verdicts(record_of(cluster, tmp_path))
        if verdict.name == "history linearizable" and not verdict.good
    ]
    assert said, "they passed"
    assert "no order explains" in said[0], "what was too hard to judge convicts nobody"
