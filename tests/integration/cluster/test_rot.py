"""Bytes flip on the disks of a running cluster: reads stay right, scrubbing mends and counts."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from integration.cluster.harness import Cluster, Node, wait_until
from integration.cluster.load import Load

from distkv.storage.base import Table
from distkv.storage.files.format import KILL, PUT, Frame, entries
from distkv.storage.files.recovery import read_tolerant, walk

SCRUB_SECONDS = 4
ROWS = 12


class Place(NamedTuple):
    """Where the value of a live row is."""

    path: Path
    offset: int
    length: int


def live_rows(node: Node, table: Table) -> dict[bytes, Place]:
    """Rows of a table as its files say now; the node goes on writing meanwhile."""
    found: dict[bytes, Place] = {}
    for path in sorted(node.data.glob("*.segment")):
        salt = bytes.fromhex(path.stem.partition("-")[2])
        for frame in walk(read_tolerant(path), salt, str(path)):
            if not isinstance(frame, Frame) or frame.directory is None:
                continue
            for entry in entries(frame):
                if entry.table != table:
                    continue
                if entry.kind == PUT and entry.length:
                    found[entry.key] = Place(path, entry.offset, entry.length)
                elif entry.kind == KILL:
                    found.pop(entry.key, None)
    return found


def flip(place: Place, rng: random.Random) -> None:
    """One bit of the value."""
    fd = os.open(place.path, os.O_RDWR)
    try:
        at = place.offset + rng.randrange(place.length)
        byte = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([byte[0] ^ 1 << rng.randrange(8)]), at)
    finally:
        os.close(fd)


def flip_rows(node: Node, table: Table, rng: random.Random, least: int = 1) -> int:
    """Rot in some live rows of at least so many bytes; how many."""
    rows = [p for _, p in sorted(live_rows(node, table).items()) if p.length >= least]
    chosen = rng.sample(rows, min(ROWS, len(rows)))
    for place in chosen:
        flip(place, rng)
    return len(chosen)


def metrics(node: Node) -> dict[str, float]:
    """Every sample of /metrics."""
    found = {}
    for line in node.request("GET", "/metrics").body.decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def rotten(node: Node, table: str) -> float:
    """Rows of this table found rotten so far, however."""
    found = metrics(node)
    return sum(
        value
        for name, value in found.items()
        if name.startswith("distkv_rotten_rows_total") and f'table="{table}"' in name
    )


def rot_until_found(node: Node, table: Table, rng: random.Random) -> None:
    """Rot in a table until some is found. A busy cluster cuts its log and overwrites its records:
    rows that were chosen may be gone before their turn comes, and then others are flipped."""
    for _ in range(8):
        assert flip_rows(node, table, rng) > 0
        with contextlib.suppress(AssertionError):
            wait_until(lambda: rotten(node, table.name) > 0, f"rot in {table.name}", 15.0)
            return
    raise AssertionError(f"rot in {table.name} is not found")


def wait_scrubbed(cluster: Cluster, rounds: int = 2) -> None:
    """Until every running node read everything again, from the start."""
    goals = {n.ordinal: metrics(n)["distkv_scrub_rounds_total"] + rounds for n in cluster.running}
    wait_until(
        lambda: all(
            metrics(n)["distkv_scrub_rounds_total"] >= goals[n.ordinal] for n in cluster.running
        ),
        f"{rounds} rounds of scrubbing",
        120.0,
    )


@pytest.fixture
def scrubbed() -> Iterator[Cluster]:
    """Five nodes that read their disks again every few seconds."""
    with Cluster(overrides={"repair": {"scrub": SCRUB_SECONDS}}) as five:
        yield five


@pytest.mark.timeout(600)
def test_flipped_bytes_under_load_are_found_counted_and_mended(scrubbed: Cluster) -> None:
    rng = random.Random(7)
    with Load(scrubbed, pause=0.05) as load:
        load.progress(300)
        for ordinal in (1, 3):
            node = scrubbed.nodes[ordinal]
            assert flip_rows(node, Table.SHARD, rng) == ROWS
            wait_until(lambda node=node: rotten(node, "SHARD") > 0, "rot in shards to be found")
        for ordinal in (0, 2, 4):
            node = scrubbed.nodes[ordinal]
            assert flip_rows(node, Table.NAME, rng) > 0
            for table in (Table.LOG, Table.RECORD):
                rot_until_found(node, table, rng)
        load.progress(100)
    wait_scrubbed(scrubbed)
    before = {n.ordinal: sum(rotten(n, t.name) for t in Table) for n in scrubbed.nodes}
    scrubbed.wait_whole()
    load.check(*scrubbed.nodes)
    wait_scrubbed(scrubbed)
    after = {n.ordinal: sum(rotten(n, t.name) for t in Table) for n in scrubbed.nodes}
    assert after == before, "whatever was rotten was mended"
    scrubbed.kill(*scrubbed.followers()[:2])
    load.check(*scrubbed.running)


@pytest.mark.timeout(600)
def test_metadata_that_nobody_remembers_come_from_a_peer(scrubbed: Cluster) -> None:
    rng = random.Random(8)
    with Load(scrubbed, sizes=(900, 2000, 4096)) as load:
        load.progress(300)
    scrubbed.wait_whole()
    victim = scrubbed.followers()[0]
    node = scrubbed.nodes[victim]
    scrubbed.kill(victim)
    assert flip_rows(node, Table.RECORD, rng, least=300) == ROWS
    scrubbed.start(victim)
    scrubbed.wait_serving()
    load.check(node)
    wait_until(lambda: metrics(node)["distkv_rows_taken_total"] >= 1, "rows of a peer")
    wait_scrubbed(scrubbed)
    assert metrics(node)["distkv_rotten_rows_waiting"] == 0
    with Load(scrubbed, name="more") as more:
        more.progress(50)
    scrubbed.wait_whole()
    more.check(*scrubbed.nodes)
    load.check(*scrubbed.nodes)


@pytest.mark.timeout(600)
def test_bytes_flipped_anywhere_while_down_are_survived_or_refused(scrubbed: Cluster) -> None:
    rng = random.Random(9)
    with Load(scrubbed) as load:
        load.progress(200)
        victim = scrubbed.followers()[0]
        node = scrubbed.nodes[victim]
        old = scrubbed.incarnation(victim)
        scrubbed.kill(victim)
        for path in sorted(node.data.glob("*.segment")):
            size = path.stat().st_size
            for _ in range(20):
                flip(Place(path, rng.randrange(200, size), 1), rng)
        node.start()

        def decided() -> bool:
            return not node.running or bool((node.status() or {}).get("serving"))

        wait_until(decided, "a start or a refusal")
        if not node.running:
            # 3: it found the damage itself. 4: only the end of the log was damaged, and cut off as
            # torn; what is left is less than others were told, and they say so.
            code, said = node.exit_code(), node.log_text()
            assert code == 3 or (code == 4 and "lost the end of its log" in said), said[-2000:]
            scrubbed.wipe(victim)
            scrubbed.start(victim)
            scrubbed.replace(victim, old)
        scrubbed.wait_serving()
        load.progress(50)
    wait_scrubbed(scrubbed)
    scrubbed.wait_whole()
    load.check(*scrubbed.nodes)


@pytest.mark.timeout(600)
def test_a_value_that_is_really_gone_is_called_lost_until_it_is_overwritten(
    scrubbed: Cluster,
) -> None:
    rng = random.Random(10)
    client = scrubbed.nodes[3].redis()
    client.set("gone", b"x" * 50_000)
    client.set("inline", b"small")
    scrubbed.wait_coded()
    scrubbed.kill(0, 1, 2)
    for ordinal in (0, 1, 2):
        for key, place in live_rows(scrubbed.nodes[ordinal], Table.SHARD).items():
            if key[:1] != b"\xff":
                flip(place, rng)
    scrubbed.start(0, 1, 2)
    scrubbed.wait_serving()
    wait_until(
        lambda: all(
            metrics(scrubbed.nodes[o])["distkv_shards_corrupt_total"] > 0 for o in (0, 1, 2)
        ),
        "rot to be found",
    )
    scrubbed.kill(3)
    other = scrubbed.nodes[4].redis()
    with pytest.raises(redis.ResponseError, match="NOQUORUM"):  # node 3 may hold what is missing
        other.get("gone")
    scrubbed.start(3)
    scrubbed.wait_serving()
    # For a node that does not hear all others yet, one of these may hold what is missing.
    wait_until(
        lambda: [len(s["peers_up"]) for s in scrubbed.statuses().values()] == [4] * 5,
        "all to hear each other",
    )
    for node in scrubbed.nodes:
        with pytest.raises(redis.ResponseError, match="DATALOST"):
            node.redis().get("gone")
        assert node.redis().get("inline") == b"small"
    listed = wait_until(
        lambda: scrubbed.nodes[3].admin("GET", "/v1/admin/lost").json["lost"], "it to be listed"
    )
    assert [(x["key"], x["shards"], x["data_shards"]) for x in listed] == [("gone", 2, 3)]
    victim = scrubbed.followers()[0]
    scrubbed.kill(victim)
    scrubbed.start(victim)
    scrubbed.wait_serving()
    assert scrubbed.nodes[victim].admin("GET", "/v1/admin/lost?limit=5").json["count"] == 1
    refused = scrubbed.nodes[victim].admin("GET", "/v1/admin/lost?limit=0")
    assert refused.status == 400
    assert b"limit" in refused.body
    scrubbed.nodes[4].redis().set("gone", b"y" * 50_000)
    wait_until(
        lambda: all(n.admin("GET", "/v1/admin/lost").json["count"] == 0 for n in scrubbed.nodes),
        "the list to be empty",
    )
    scrubbed.wait_whole()
    for node in scrubbed.nodes:
        assert node.redis().get("gone") == b"y" * 50_000
