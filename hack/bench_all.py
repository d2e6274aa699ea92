"""`hack/bench`: what the store costs, as tables or as JSON.

cost      CPU milliseconds per 1 KiB put over all five nodes at 1, 32 and 256 clients, and puts
          per second, in turn with etcd on the same machine: both through the leader, and ours
          through another node as well
bytes     bytes on the wire and on disk per byte stored, with 5, 4 and 3 nodes up
failover  from kill -9 of the leader to the next acknowledged write
rebuild   a wiped node gets its shards back (only when asked for: minutes): wire bytes per byte, and
          what clients notice
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import bench_rebuild
import bench_sections as sections
from rich.console import Console
from rich.table import Table

SECTIONS = ("cost", "bytes", "failover")
ON_DEMAND = ("rebuild",)
MEBIBYTE = 1 << 20


def main(arguments: list[str]) -> int:
    """Measure what was asked for; exit code 0."""
    parser = argparse.ArgumentParser(
        prog="hack/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="for programs, on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "section", nargs="*", choices=[*SECTIONS, *ON_DEMAND, []], help="default: the first three"
    )
    parser.add_argument(
        "--rebuild-mib", type=int, help="shards to rebuild, MiB (default 1024; 64 with --quick)"
    )
    options = parser.parse_args(arguments)
    wanted = options.section or SECTIONS
    quick = options.quick
    found: dict[str, Any] = {}
    for section in wanted:
        print(f"bench: measuring {section}", file=sys.stderr, flush=True)
        if section == "cost":
            found["cost"] = sections.cost(1 if quick else 3, 2.0 if quick else 5.0)
        elif section == "bytes":
            found["bytes"] = sections.bytes_stored(10 if quick else 40)
        elif section == "rebuild":
            size = options.rebuild_mib or (64 if quick else 1024)
            found["rebuild"] = bench_rebuild.rebuild(size * MEBIBYTE)
        else:
            found["failover"] = sections.failover(5 if quick else 20)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 0


def show(found: dict[str, Any]) -> None:
    """Tables for people."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    if "cost" in found:
        console.print(cost_table(found["cost"]["puts"]))
        for name, used in found["cost"]["idle_cpu_ms_per_second"].items():
            console.print(f"{name}: {used:g} ms of CPU per second when idle, all five nodes")
        if not all(row["etcd"] for row in found["cost"]["puts"]):
            console.print("etcd could not be fetched: nothing to compare with")
    if "bytes" in found:
        console.print(bytes_table(found["bytes"]))
    for sentence in bench_rebuild.sentences(found["rebuild"]) if "rebuild" in found else ():
        console.print(sentence)
    if "failover" in found:
        failover = found["failover"]
        console.print(
            f"kill -9 of the leader to the next acknowledged write, {failover['rounds']} times: "
            f"median {failover['median_ms']} ms, p95 {failover['p95_ms']} ms, "
            f"largest {failover['largest_ms']} ms"
        )


def cost_table(rows: list[dict[str, Any]]) -> Table:
    """1 KiB puts."""
    table = Table(
        title="1 KiB puts to the leader (etcd: by gRPC), five nodes, medians; "
        "forwarded: CPU ms of a put to another node"
    )
    for name in ("clients", "CPU ms/put", "budget", "forwarded", "puts/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for name in ("etcd CPU ms", "etcd puts/s", "etcd p50", "etcd p99"):
        table.add_column(name, justify="right", style="dim")
    fields = ("cpu_ms_per_put", "puts_per_second", "p50_ms", "p99_ms")
    for row in rows:
        ours = [f"{row['distkv'][field]:g}" for field in fields]
        theirs = [f"{row['etcd'][field]:g}" if row["etcd"] else "-" for field in fields]
        ours.insert(1, f"{row['budget_cpu_ms']:g}")
        ours.insert(2, f"{row['distkv_through_a_follower']['cpu_ms_per_put']:g}")
        table.add_row(str(row["clients"]), *ours, *theirs)
    return table


def bytes_table(rows: list[dict[str, Any]]) -> Table:
    """Bytes per byte stored."""
    table = Table(title="bytes per byte of 1 MB values")
    for name in ("nodes up", "wire", "in theory", "disk", "in theory"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["nodes_up"]),
            *(f"{row[f]:.3f}" for f in ("wire_per_byte", "wire_theory")),
            *(f"{row[f]:.3f}" for f in ("disk_per_byte", "disk_theory")),
        )
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
