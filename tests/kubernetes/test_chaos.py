"""A fixed handful of faults under load, and nodes that lie: the short form of hack/chaos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import mischief
from chaos.campaign import Campaign, Result
from chaos.controller import operator
from chaos.lab import Lab
from chaos.main import load_images
from chaos.report import write
from testbed.harness import Cluster, hack_kube
from testbed.image.build import build
from testbed.paths import CHECKOUT
from testbed.progress import Progress

IMAGE = "distkv:dev"
SCENARIOS = (
    "minority-leader",
    "kill-9",
    "isolate-gateways",
    "node-stop",
    "claim-deleted",
    "disk-full",
    "operator-killed",
    "api-outage",
)
REPORTS = CHECKOUT / ".cache" / "chaos"


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    load_images(IMAGE)
    with operator(cluster, IMAGE):
        yield cluster


def inflict(cluster: Cluster, image: str, names: tuple[str, ...], report: Path) -> Result:
    report.parent.mkdir(parents=True, exist_ok=True)
    with cluster.space("restricted", "chaos") as space:
        lab = Lab(space, 3, 2, image)
        lab.create()
        result = Campaign(lab, 1, 0, names, once=True).run(report.parent)
    write(result, report, "DistKV under a fixed handful of faults")
    return result


@pytest.mark.timeout(1800)
def test_a_handful_of_faults(prepared: Cluster) -> None:
    result = inflict(prepared, IMAGE, SCENARIOS, REPORTS / "report-handful.html")
    assert [verdict for verdict in result.verdicts if not verdict.good] == []
    assert len(result.faults) == len(SCENARIOS)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", mischief.KINDS)
def test_nodes_that_lie_do_not_pass(prepared: Cluster, tmp_path: Path, kind: str) -> None:
    image = f"distkv:{kind}"
    archive = tmp_path / "image.tar"
    build(archive, image, Progress(quiet=True), [mischief.layer(kind)])
    hack_kube("load-image", str(archive))
    result = inflict(prepared, image, ("kill-9",), REPORTS / f"report-{kind}.html")
    said = [v.detail for v in result.verdicts if v.name == "history linearizable" and not v.good]
    assert said, "they passed"
    assert "no order explains" in said[0], "what was too hard to judge convicts nobody"
