"""Judging a roll by the versions of the status that the operator wrote while it rolled.

The round that takes a pod away writes a status that nobody else writes: it names the pod, says how
many are left, and holds what the operator had observed when it decided: who led, and what each
member said of its own role. That is all it can promise by: leadership may move in the moment
between its question and its deletion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

REPLACING = re.compile(r"replacing node (\d+); (\d+) of \d+ pods still to be replaced")


class Decision(NamedTuple):
    """`left`: pods that had yet to be replaced, this one among them. `leading`: the members that
    called themselves the leader; `leader`: whom the operator took for it."""

    ordinal: int
    left: int
    leader: int | None
    leading: tuple[int, ...]


def decisions(statuses: Iterable[dict[str, Any]]) -> list[Decision]:
    """Which pods were taken away, by all versions of the status in their order."""
    found: list[Decision] = []
    for status in statuses:
        said = {entry["type"]: entry["message"] for entry in status.get("conditions") or []}
        match = REPLACING.match(said.get("Progressing", ""))
        if match is None:
            continue
        leading = tuple(m["ordinal"] for m in status["members"] if m["role"] == "leader")
        decision = Decision(int(match[1]), int(match[2]), status.get("leader"), leading)
        if not found or found[-1] != decision:
            found.append(decision)
    return found


def check_leader_last(decided: Iterable[Decision]) -> None:
    """Raises AssertionError if a leader went while another pod had yet to be replaced, or if nobody
    was known to lead when a pod was taken away."""
    for decision in decided:
        assert decision.leader in decision.leading, f"nobody led by its own word: {decision}"
        if decision.left > 1:
            assert decision.ordinal != decision.leader, f"the leader went early: {decision}"
            assert decision.leading != (decision.ordinal,), f"the leader went early: {decision}"
