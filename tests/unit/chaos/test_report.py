"""The report of a run is a whole page that shows every fault and verdict."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from chaos.campaign import Result
from chaos.faults import TABLE
from chaos.main import parser
from chaos.record import Record
from chaos.report import lanes, page, picture, step, write
from chaos.verdicts import Verdict
from unit.chaos.test_verdicts import fault, record


def result(run: Record) -> Result:
    faults = [
        fault(name="kill-9", what="<store-1>", began=2.0, ended=6.0),
        fault(name="drain", began=4.0, ended=8.0, covered=False),
        fault(name="disk-full", began=9.0, ended=12.0, failed="not seen"),
    ]
    verdicts = [Verdict("one", True, "fine"), Verdict("two", False, "a < b")]
    return Result(7, 0.0, 21.0, run, faults, verdicts)


def test_the_picture_is_one_well_formed_drawing() -> None:
    drawing = ElementTree.fromstring(picture(result(record())))
    assert drawing.get("viewBox", "").startswith("0 0 1100")
    bars = [each for each in drawing.iter("rect") if each.find("title") is not None]
    assert len(bars) == 3
    assert len(list(drawing.iter("polyline"))) == 3


def test_the_page_names_every_fault_and_verdict_and_escapes_them() -> None:
    text = page(result(record()), "A run")
    for words in ("BROKEN", "&lt;store-1&gt;", "a &lt; b", "not seen", "drain", "seed 7"):
        assert words in text
    assert "<store-1>" not in text


def test_a_run_without_faults_and_answers_has_a_page_too(tmp_path: Path) -> None:
    empty = Result(1, 0.0, 0.5, Record(), [], [])
    write(empty, tmp_path / "report.html", "Nothing")
    assert "0 faults" in (tmp_path / "report.html").read_text()
    assert '"good": true' in (tmp_path / "report.json").read_text()


def test_faults_that_overlap_are_in_different_lanes() -> None:
    spans = [(0, 5), (2, 4), (4, 6), (5, 9)]
    assert lanes([fault(began=b, ended=e) for b, e in spans]) == [0, 1, 1, 0]


def test_grids_have_round_distances() -> None:
    assert [step(most) for most in (0, 3, 38, 170, 2000)] == [1.0, 1, 10, 50, 500]


def test_every_fault_can_be_named_on_the_command_line() -> None:
    assert len(TABLE) == 24
    options = parser().parse_args(["--seed", "3", "--faults", ",".join(TABLE), "--once"])
    assert options.faults.split(",") == list(TABLE)
