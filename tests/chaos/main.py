"""`hack/chaos`: see --help."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from chaos.campaign import Campaign, Result
from chaos.controller import operator
from chaos.faults import TABLE
from chaos.lab import Lab
from chaos.report import write
from testbed.choose import make
from testbed.cli import cluster_name, recorded_provider
from testbed.errors import LabError
from testbed.harness import Cluster, hack_kube
from testbed.paths import CHECKOUT
from testbed.progress import Progress
from testbed.run import run

DESCRIPTION = """\
Faults from a seed against a real cluster under load, and a judgement of what its clients saw.

  hack/chaos --minutes 10                      any faults, a seed of its own
  hack/chaos --seed 7 --minutes 60             the same faults again
  hack/chaos --faults kill-9,split --minutes 5
  hack/chaos --once --faults drain,disk-gone   each of them once, in this order

Needs a cluster of the test bed with one node more than the store has (hack/kube up), and starts
one if there is none. The report is one HTML file. Exit code 1 if a verdict does not hold.
"""


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser("hack/chaos", description=DESCRIPTION, formatter_class=raw)
    found.add_argument("--seed", type=int, help="of everything that is drawn (default: a new one)")
    found.add_argument("--minutes", type=float, default=10.0, help="of faults (default: 10)")
    found.add_argument("--faults", default="", metavar="A,B", help=f"of: {', '.join(TABLE)}")
    found.add_argument("--once", action="store_true", help="each fault of --faults once, in order")
    found.add_argument("--data-shards", type=int, default=3)
    found.add_argument("--parity-shards", type=int, default=2)
    found.add_argument("--image", default="distkv:dev", help="of the store (default: distkv:dev)")
    found.add_argument("--no-build", action="store_true", help="the image is on the nodes already")
    found.add_argument("--report", type=Path, help="default: .cache/chaos/report-SEED.html")
    found.add_argument("--keep", action="store_true", help="leave the store there afterwards")
    return found


def running() -> Cluster:
    """The test bed's cluster; started if there is none."""
    if recorded_provider(cluster_name()) is None:
        hack_kube("up")
    provider = recorded_provider(cluster_name())
    assert provider is not None
    return Cluster(make(provider, cluster_name(), Progress(quiet=True)))


def load_images(image: str) -> None:
    """The image under two names, so that a roll from one to the other replaces every pod."""
    for tag in (image, f"{image}-again"):
        output = CHECKOUT / ".cache" / f"chaos-{tag.replace(':', '-').replace('/', '-')}.tar"
        run([CHECKOUT / "hack" / "image", "--load", "--tag", tag, "--output", output], timeout=1200)


def campaign(options: argparse.Namespace, names: list[str], seed: int) -> Result:
    cluster = running()
    if not options.no_build:
        load_images(options.image)
    report: Path = options.report or CHECKOUT / ".cache" / "chaos" / f"report-{seed}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    with (
        operator(cluster, options.image),
        cluster.space("restricted", "chaos", options.keep) as space,
    ):
        lab = Lab(space, options.data_shards, options.parity_shards, options.image)
        lab.create()
        chaos = Campaign(lab, seed, options.minutes * 60, names, options.once)
        result = chaos.run(report.parent)
    write(result, report, f"DistKV under faults, seed {seed}")
    print(report)
    return result


def main() -> int:
    options = parser().parse_args()
    names = [name for name in options.faults.split(",") if name]
    unknown = [name for name in names if name not in TABLE]
    if unknown:
        print(f"hack/chaos: no such fault: {', '.join(unknown)}", file=sys.stderr)
        return 2
    if options.once and not names:
        names = list(TABLE)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"seed {seed}", file=sys.stderr)
    try:
        result = campaign(options, names, seed)
    except LabError as error:
        print(f"hack/chaos: {error}", file=sys.stderr)
        return 2
    for verdict in result.verdicts:
        print(f"{'holds ' if verdict.good else 'BROKEN'}  {verdict.name}: {verdict.detail}")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
