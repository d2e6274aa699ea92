"""One run: a cluster, its clients, faults from a seed, and the verdicts."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults import TABLE
from chaos.lab import Lab
from chaos.plan import Plan, prove
from chaos.record import Record, load
from chaos.verdicts import Fault, Verdict, judge
from testbed.errors import LabError

TWO_AT_ONCE = 0.3
CALM = (4.0, 9.0)
"""Seconds without a fault at the beginning and between two."""
MARGIN_SECONDS = 900.0
ROUND_SECONDS_MAX = 300.0
"""What one fault, with the way back, may take before its clients go home."""
REDRAWS = 2
"""Tries more for a fault that could not be drawn, where each is wanted once."""


@dataclass
class Result:
    """All that the report shows."""

    seed: int
    began: float
    ended: float
    record: Record
    faults: list[Fault]
    verdicts: list[Verdict]
    settled: list[tuple[float, float]] = field(default_factory=list)
    """From the end of the faults to the moment at which all was well again."""

    @property
    def good(self) -> bool:
        return all(verdict.good for verdict in self.verdicts)


class Campaign:
    """`names`: the faults to draw from; `once`: each of them once and in this order."""

    def __init__(
        self,
        lab: Lab,
        seed: int,
        seconds: float,
        names: Sequence[str] = (),
        once: bool = False,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self._lab, self.seed, self._seconds = lab, seed, seconds
        self._names = list(names or TABLE)
        if once:
            self._seconds = seconds + len(self._names) * ROUND_SECONDS_MAX
        self._once = once
        self._random = random.Random(seed)
        self._began = time.time()
        self._faults: list[Fault] = []
        self._settled: list[tuple[float, float]] = []
        self._unsettled = ""
        self._say = say

    def run(self, folder: Path) -> Result:
        """Raises LabError only if there is nothing to judge."""
        lab = self._lab
        lab.note_ends()
        lab.start_clients(self.seed, self._seconds + MARGIN_SECONDS)
        self._began = time.time()
        self._calm()
        try:
            self._inflict()
        finally:
            lab.stop_clients()
        self._unsettled = self._unsettled or lab.settle(calm=True)
        lab.read_all()
        history = folder / f"history-{self.seed}.jsonl.gz"
        lab.fetch_history(history)
        record = load(history)
        lab.note_ends()
        ended = time.time()
        verdicts = judge(record, self._faults, lab.ends, self._unsettled)
        return Result(self.seed, self._began, ended, record, self._faults, verdicts, self._settled)

    def _inflict(self) -> None:
        if self._once:
            for name in self._names:
                self._round([name])
                if self._unsettled:
                    return
            return
        while time.time() - self._began < self._seconds and not self._unsettled:
            count = 2 if self._random.random() < TWO_AT_ONCE else 1
            self._round([self._random.choice(self._names) for _ in range(count)])

    def _round(self, names: Sequence[str]) -> None:
        """Faults that overlap, and the way back to a cluster in which all is well."""
        plans: list[Plan] = []
        for name in names:
            plan = self._draw(name, plans)
            for _ in range(REDRAWS if self._once else 0):  # here each of them counts
                plan = plan or self._draw(name, plans)
            if plan is not None:
                plans.append(plan)
        if not plans:
            return
        plans.sort(key=lambda plan: plan.takes_api)
        marks = self._begin_all(plans)
        hit = frozenset[int]().union(*(plan.hit for plan in plans))
        within = len(hit) <= self._lab.failures
        for plan, (began, proven, failed) in reversed(list(zip(plans, marks, strict=True))):
            cut_until = time.time()
            failed = self._end(plan) or failed
            self._faults.append(
                Fault(
                    plan.name,
                    plan.what,
                    began,
                    proven,
                    cut_until,
                    within and all(p.spares_writes for p in plans),
                    tuple(str(ordinal) for ordinal in plan.cut_off),
                    plan.pods_ending,
                    failed,
                )
            )
        healed = time.time()
        self._unsettled = self._lab.settle()
        self._settled.append((healed, time.time()))
        if self._unsettled:
            self._say(f"{self._clock()} not well after {' and '.join(names)}: {self._unsettled}")
        self._calm()

    def _begin_all(self, plans: Sequence[Plan]) -> list[tuple[float, float | None, str]]:
        """Returns when they have been held. What breaks it off undoes them: the lab is shared."""
        begun: list[Plan] = []
        marks = []
        try:
            for plan in plans:
                begun.append(plan)
                marks.append(self._begin(plan))
            # How long faults last is drawn: there is nothing to wait for but that.
            time.sleep(max(self._random.uniform(*plan.hold) for plan in plans))
        except BaseException:
            for plan in reversed(begun):
                self._end(plan)
            raise
        return marks

    def _draw(self, name: str, others: Sequence[Plan]) -> Plan | None:
        hit = frozenset[int]().union(*(plan.hit for plan in others))
        usable = frozenset(self._lab.ordinals) - hit
        if len(hit) >= self._lab.failures:
            usable = frozenset()
        if any(plan.name == name for plan in others):
            return None
        try:
            plan = TABLE[name](self._lab, self._random, usable)
        except (LabError, KeyError, IndexError, ValueError) as error:
            self._say(f"{self._clock()} {name} not drawn: {error}")
            return None
        return plan if len(plan.hit | hit) <= self._lab.failures else None

    def _begin(self, plan: Plan) -> tuple[float, float | None, str]:
        began = time.time()
        self._say(f"{self._clock()} {plan.name}: {plan.what}")
        try:
            plan.begin()
        except LabError as error:
            return began, None, f"could not be done: {error}"
        proven, failed = prove(plan)
        if failed:
            self._say(f"{self._clock()} {plan.name} {failed}")
        self._lab.note_ends()
        return began, proven, failed

    def _end(self, plan: Plan) -> str:
        """Why it could not be undone, or nothing. Tried again: the API may just come back."""
        why = ""
        for _ in range(10):
            try:
                plan.end()
                return ""
            except LabError as error:
                why = f"could not be undone: {error}"
                time.sleep(1)
        return why

    def _calm(self) -> None:
        time.sleep(self._random.uniform(*CALM))

    def _clock(self) -> str:
        return f"{time.time() - self._began:7.1f} s"
