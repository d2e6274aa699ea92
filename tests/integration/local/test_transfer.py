"""Import, export, the demo and the load generator against a real cluster."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from integration.local.cluster import PATIENCE_SECONDS, Cluster, environment

from distkv.local.ports import HOST

Make = Callable[[int, int], Cluster]
ROOT = Path(__file__).resolve().parents[3]


def make_files(directory: Path) -> dict[str, bytes]:
    """Files of all sizes that matter: nothing, inline, just over, one stripe, many."""
    rng = random.Random(3)
    files = {f"sub/{i % 7}/{size}-{i}": rng.randbytes(size) for i, size in enumerate(SIZES)}
    files["name with spaces & ?#%"] = b"x"
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


SIZES = [0, 1, 100, 4095, 4096, 4097, 65536, 262144, 262145, 1_000_000, 3_500_001] + [2000] * 40


def test_what_goes_in_comes_out_and_a_broken_off_import_goes_on(make: Make, tmp_path: Path) -> None:
    files = make_files(tmp_path / "in")
    cluster = make(2, 1)
    cluster.up()
    listing = tmp_path / "listing"
    where = (str(tmp_path / "in"), "--prefix", "p/", "--listing", str(listing))
    cluster.kv("import", *where)
    listed = listing.read_text().splitlines()
    assert len(listed) == len(files)

    # As if it had been broken off: half of the lines, the last one torn.
    listing.write_text("\n".join(listed[: len(files) // 2]) + "\n" + listed[-1][:30])
    said = cluster.kv("import", *where, "--json")
    summary = json.loads(said.splitlines()[-1])
    assert summary["skipped"] == len(files) // 2
    assert summary["files"] == len(files)

    out = tmp_path / "out"
    cluster.kv("export", str(out), "--prefix", "p/", "--listing", str(listing))
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == files

    cluster.kv("set", "p/sub/1/1-1", "changed")
    said = cluster.kv("export", str(out), "--prefix", "p/", "--listing", str(listing), code=6)
    assert "sub/1/1-1: different" in said


def test_single_keys_and_their_exit_codes(make: Make) -> None:
    cluster = make(1, 0)
    cluster.up()
    version = cluster.kv("set", "a", "1").strip()
    assert cluster.kv("get", "a") == "1"
    assert "condition_failed" in cluster.kv("set", "a", "2", "--if-absent", code=4)
    newer = cluster.kv("set", "a", "2", "--if-version", version).strip()
    assert newer != version
    assert "condition_failed" in cluster.kv("delete", "a", "--if-version", version, code=4)
    cluster.kv("set", "b/1", "x")
    cluster.kv("set", "b/2", "x")
    assert cluster.kv("scan").split() == ["a", "b/1", "b/2"]
    assert cluster.kv("scan", "b/", "--limit", "1").split() == ["b/1"]
    cluster.kv("delete", "a")
    cluster.kv("get", "a", code=3)
    shown = cluster.distkv("status", "--server", f"{HOST}:{cluster.plan.node(0).http}")
    assert ": serving, leader, incarnation" in shown


def test_the_load_generator_counts_what_was_stored(make: Make) -> None:
    cluster = make(1, 0)
    cluster.up()
    where = f"{HOST}:{cluster.plan.gateway_resp}"
    load = ("bench", "--resp", where, "--clients", "4", "--seconds", "1", "--keys", "50", "--json")
    result = json.loads(cluster.distkv(*load))
    assert result["errors"] == 0
    assert result["acknowledged"] >= result["requests"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["largest_ms"]
    keys = cluster.kv("scan", "bench:").split()
    assert 0 < len(keys) <= min(50, result["acknowledged"])
    mixed = json.loads(cluster.distkv(*load, "--reads", "0.5"))
    assert mixed["errors"] == 0


def test_the_demo_on_a_small_directory(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in")
    command = [sys.executable, "-m", "distkv.cli.demo", "--once", str(tmp_path / "in")]
    command += ["--cluster", str(tmp_path / "cluster")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=5 * PATIENCE_SECONDS,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout
    assert f"all {len(files)} files came back right" in done.stdout
    assert done.stdout.count("kill -9") == 2
    assert "wiping the disk" in done.stdout
    assert not (tmp_path / "cluster").exists()
