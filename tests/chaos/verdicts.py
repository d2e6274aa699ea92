"""What must be true of a run, judged from what clients saw and what the cluster says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chaos.record import Operation, Record

from distkv.simulation.history import check

SILENCE_MAX = 10.0
"""Seconds without an acknowledged write that a fault within the promise may cost."""
REFUSAL_GRACE = 1.0
"""Seconds after a proven cut in which an answer may still be under way."""
HARD_SHARE_MAX = 0.01
SHOWN_MAX = 12


class Verdict(NamedTuple):
    """One line of the report."""

    name: str
    good: bool
    detail: str


class Fault(NamedTuple):
    """What was done to the cluster, and what of the promise it leaves standing."""

    name: str
    what: str
    began: float
    """When it was asked for, seconds since the epoch."""
    proven: float | None
    """When a probe showed that it is real; None: it needs no proof, or there was none."""
    ended: float
    covered: bool
    """Whether writes must go on."""
    cut_off: tuple[str, ...] = ()
    """Doors that had no quorum behind them from `proven` to `ended`."""
    excused: tuple[str, ...] = ()
    """Pods that it may have restarted or replaced."""
    failed: str = ""
    """Why it could not be done as meant; then nothing is concluded from it."""


def judge(
    record: Record,
    faults: Sequence[Fault],
    restarts: Iterable[str],
    unsettled: str,
) -> list[Verdict]:
    """`restarts`: pods that ended, once for each time; `unsettled`: what was still not well."""
    return [
        nothing_lost(record),
        linearizable(record),
        minorities_refuse(record, faults),
        writes_go_on(record, faults),
        faults_were_real(faults),
        Verdict("status green in the end, no shard missing, no garbage", not unsettled, unsettled),
        restarts_explained(faults, restarts),
    ]


def nothing_lost(record: Record) -> Verdict:
    """Every key was read at the end, at every door, and nothing was lost or changed.

    That a value is the one it must be is the matter of `linearizable`, of which the last reads
    are a part.
    """
    name = "every key read at the end, nothing lost or corrupt"
    wrong = record.losses
    if record.final_keys is None:
        wrong.append("there was no reading of all keys at the end")
    elif record.final_failed:
        wrong.append(f"{record.final_failed} reads at the end were not answered")
    written = sum(op.acknowledged for op in record.operations)
    if not written:
        wrong.append("nothing was acknowledged at all")
    said = f"{written} acknowledged writes, {record.final_keys} keys read at every door"
    return Verdict(name, not wrong, "\n".join(wrong[:SHOWN_MAX]) or said)


def linearizable(record: Record) -> Verdict:
    """See distkv.simulation.history; a few keys may be too hard to judge."""
    calls = record.calls()
    problems, hard = check(calls)
    keys = len({call.key for call in calls})
    still_open = sum(call.open for call in calls)
    if hard > HARD_SHARE_MAX * keys:
        problems.append(f"{hard} of {keys} keys have too many open operations to be judged")
    said = f"{len(calls)} operations on {keys} keys, {still_open} open, {hard} keys not judged"
    return Verdict("history linearizable", not problems, "\n".join(problems[:3]) or said)


def minorities_refuse(record: Record, faults: Sequence[Fault]) -> Verdict:
    """No door that was cut off from a quorum acknowledged or answered what was asked meanwhile."""
    wrong, asked, cuts = [], 0, 0
    for fault in faults:
        if fault.failed or fault.proven is None or not fault.cut_off:
            continue
        cuts += 1
        begin = fault.proven + REFUSAL_GRACE
        for op in record.operations:
            inside = begin <= op.invoked and op.returned <= fault.ended
            if inside and op.door in fault.cut_off:
                asked += 1
                if not op.error:
                    wrong.append(f"{fault.name}: {op.kind} {op.key} answered at door {op.door}")
    if cuts and not asked:
        wrong.append(f"nobody asked at a cut-off door during {cuts} cuts")
    said = f"{asked} requests at cut-off doors during {cuts} cuts, all refused"
    return Verdict("a minority refuses", not wrong, "\n".join(wrong[:SHOWN_MAX]) or said)


def writes_go_on(record: Record, faults: Sequence[Fault]) -> Verdict:
    """Within 10 s of any fault that the promise covers, and all the time while it lasts."""
    moments = sorted(op.returned for op in record.operations if op.acknowledged)
    wrong, longest, covered = [], 0.0, 0
    for fault in faults:
        if fault.failed or not fault.covered:
            continue
        covered += 1
        silence = longest_silence(moments, fault.began, fault.ended)
        longest = max(longest, silence)
        if silence > SILENCE_MAX:
            wrong.append(f"{fault.name} ({fault.what}): {silence:.1f} s without a write")
    said = f"longest silence {longest:.1f} s in {covered} faults that the promise covers"
    return Verdict(
        f"writes go on within {SILENCE_MAX:.0f} s", not wrong, "\n".join(wrong[:SHOWN_MAX]) or said
    )


def longest_silence(moments: Sequence[float], begin: float, end: float) -> float:
    """The longest time between acknowledgements that touches [begin, end], seconds, counted from
    `begin` on."""
    longest, last = 0.0, begin
    for moment in moments:
        if moment < begin:
            continue
        longest = max(longest, moment - last)
        last = moment
        if moment > end:
            return longest
    return max(longest, end - last)


def faults_were_real(faults: Sequence[Fault]) -> Verdict:
    """A fault that could not be done proves nothing, so a run must not be green with it."""
    wrong = [f"{fault.name} ({fault.what}): {fault.failed}" for fault in faults if fault.failed]
    proven = sum(fault.proven is not None for fault in faults)
    said = f"{len(faults)} faults, {proven} with a probe that saw them"
    return Verdict("every fault was really done", not wrong, "\n".join(wrong) or said)


def restarts_explained(faults: Sequence[Fault], restarts: Iterable[str]) -> Verdict:
    """No pod ended more often than the faults that name it."""
    excuses: dict[str, int] = {}
    for fault in faults:
        for pod in fault.excused:
            excuses[pod] = excuses.get(pod, 0) + 1
    seen: dict[str, int] = {}
    for pod in restarts:
        seen[pod] = seen.get(pod, 0) + 1
    wrong = [
        f"{pod} ended {count} times, faults explain {excuses.get(pod, 0)}"
        for pod, count in sorted(seen.items())
        if count > excuses.get(pod, 0)
    ]
    said = f"{sum(seen.values())} ends of pods, all explained"
    return Verdict("nothing restarted without a reason", not wrong, "\n".join(wrong) or said)


def throughput(operations: Sequence[Operation], begin: float, end: float) -> list[int]:
    """Acknowledged operations in each second."""
    found = [0] * (int(end - begin) + 1)
    for op in operations:
        if not op.error and begin <= op.returned <= end:
            found[int(op.returned - begin)] += 1
    return found


def latencies(operations: Sequence[Operation], begin: float, end: float) -> list[tuple[float, ...]]:
    """Median and 99th percentile of each second, in seconds; zeros where nothing was answered."""
    buckets: list[list[float]] = [[] for _ in range(int(end - begin) + 1)]
    for op in operations:
        if not op.error and begin <= op.returned <= end:
            buckets[int(op.returned - begin)].append(op.returned - op.invoked)
    found = []
    for bucket in buckets:
        ordered = sorted(bucket)
        if ordered:
            last = len(ordered) - 1
            found.append((ordered[last // 2], ordered[min(last, int(0.99 * len(ordered)))]))
        else:
            found.append((0.0, 0.0))
    return found
