"""Runs the stages of `hack/test`: one line each with its time, then the sum of all tests.

The last line is always "N passed, N failed, N skipped in T s"; a check (lint, types, layers)
counts as one test. The exit code is 0 only if nothing failed.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NO_TESTS_COLLECTED = 5
TESTBED = ROOT / "hack" / "testbed" / "run-tests"


class Tally(NamedTuple):
    """How many tests ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )


class Stage(NamedTuple):
    """`arguments` of pytest if `tests`, else a command that passes or fails as a whole.

    `runner`: what runs pytest instead of Python. `barrier`: says on its standard output why the
    stage cannot run here, and exits with 1 then.
    """

    name: str
    arguments: list[str]
    tests: bool = True
    runner: tuple[str, ...] = (sys.executable, "-m", "pytest", "-q")
    barrier: tuple[str, ...] = ()


def checks() -> list[Stage]:
    """What needs no run of the store."""
    return [
        Stage("lint", [str(BIN / "ruff"), "check", "--quiet", "."], False),
        Stage("format", [str(BIN / "ruff"), "format", "--quiet", "--check", "."], False),
        Stage("types", [str(BIN / "mypy")], False),
        Stage("layers", [str(BIN / "lint-imports"), "--no-cache"], False),
    ]


def stages(fast: bool, long: bool) -> list[Stage]:
    """All stages, the quick ones first."""
    marks = [] if long else ["-m", "not long"]
    two = ["-n", "2", "--dist", "loadgroup"]
    plan = [*checks(), Stage("unit", ["tests/test_tidy.py", "tests/unit", *two, *marks])]
    if not fast:
        for name in ("scenarios", "simulation"):
            plan.append(Stage(name, [f"tests/{name}", *two, *marks]))
        plan.append(Stage("integration", ["tests/integration", *marks]))
        plan.extend(testbed(marks))
    return plan


def testbed(marks: list[str]) -> list[Stage]:
    """The tests on a real Kubernetes, where the repository has them."""
    if not TESTBED.exists():
        return []
    ready = ("env", f"PYTHONPATH={TESTBED.parent.parent}", sys.executable, "-m", "testbed.ready")
    return [Stage("kubernetes", ["tests/kubernetes", *marks], True, (str(TESTBED),), ready)]


def run(stage: Stage) -> Tally:
    """Run one stage, print its line; its output only if it failed."""
    began = time.monotonic()
    if reason := _barred(stage):
        print(f"{stage.name:12} SKIPPED because it cannot run here: {reason}", flush=True)
        return Tally(skipped=1)
    if stage.tests:
        outcome, output = _pytest(stage)
    else:
        done = subprocess.run(
            stage.arguments, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        outcome = Tally(passed=1) if done.returncode == 0 else Tally(failed=1)
        output = done.stdout + done.stderr
    if outcome.failed:
        print(output, flush=True)
    took = time.monotonic() - began
    word = "FAILED" if outcome.failed else "ok"
    counts = f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped"
    print(f"{stage.name:12} {word:6} {counts:42} {took:6.1f} s", flush=True)
    return outcome


def _barred(stage: Stage) -> str:
    if not stage.barrier:
        return ""
    done = subprocess.run(stage.barrier, cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stdout.strip() or done.stderr.strip()[-500:])


def _pytest(stage: Stage) -> tuple[Tally, str]:
    paths = [ROOT / part for part in stage.arguments if part.startswith("tests/")]
    if not any(path.is_file() or any(path.rglob("test_*.py")) for path in paths):
        return Tally(), ""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [*stage.runner, f"--junitxml={report}", *stage.arguments]
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        output = done.stdout + done.stderr
        if done.returncode == NO_TESTS_COLLECTED:
            return Tally(), output
        tally = _read(report) if report.exists() else Tally()
    if done.returncode != 0 and not tally.failed:
        tally = tally.plus(Tally(failed=1))
    return tally, output


def _read(report: Path) -> Tally:
    tally = Tally()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors")}
        skipped = int(suite.get("skipped", "0"))
        failed = number["failures"] + number["errors"]
        tally = tally.plus(Tally(max(0, number["tests"] - failed - skipped), failed, skipped))
    return tally


def usage() -> str:
    """What the comment at the head of `hack/test` says."""
    lines = (ROOT / "hack" / "test").read_text().splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines[1:])
    return "".join(f"{line.removeprefix('#').removeprefix(' ')}\n" for line in comment)


def main(arguments: list[str]) -> int:
    """See the module; returns the exit code."""
    if arguments in (["-h"], ["--help"]):
        print(usage(), end="")
        return 0
    known = {"--fast", "--long", "--kubernetes"}
    flags = {argument for argument in arguments if argument in known}
    rest = [argument for argument in arguments if argument not in known]
    if rest:
        return subprocess.run([sys.executable, "-m", "pytest", *rest], cwd=ROOT).returncode
    if "--kubernetes" in flags:
        plan = testbed([])
        if not plan:
            print("hack/testbed/run-tests is not in this checkout", file=sys.stderr)
            return 2
    else:
        plan = stages("--fast" in flags, "--long" in flags)
    began = time.monotonic()
    total = Tally()
    for stage in plan:
        total = total.plus(run(stage))
    print(
        f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped "
        f"in {time.monotonic() - began:.0f} s"
    )
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
