"""The verdicts say no where they must: each is shown a run that breaks just its rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chaos.record import Record, read
from chaos.verdicts import Fault, judge, latencies, longest_silence, throughput
from chaos.workload import SIZES, token_of, value_of

GOOD: list[dict[str, Any]] = [
    {
        "c": 0,
        "d": "g",
        "k": "r0-1",
        "o": "put",
        "i": 1.0,
        "r": 1.1,
        "v": "0.1",
        "s": 40,
        "x": False,
    },
    {"c": 1, "d": "0", "k": "r0-1", "o": "get", "i": 1.2, "r": 1.3, "v": "0.1"},
    {
        "c": 1,
        "d": "0",
        "k": "r0-1",
        "o": "cas",
        "i": 2,
        "r": 2.1,
        "v": "1.1",
        "w": "0.1",
        "met": True,
    },
    {
        "c": 2,
        "d": "1",
        "k": "r0-1",
        "o": "cas",
        "i": 3,
        "r": 3.1,
        "v": "2.1",
        "w": "0.1",
        "met": False,
    },
    {"c": 3, "d": "1", "k": "c0-0", "o": "increment", "i": 1, "r": 2, "v": 1},
    {
        "c": 3,
        "d": "1",
        "k": "c0-0",
        "o": "increment",
        "i": 3,
        "r": 4,
        "e": "TimeoutError",
        "sure": False,
    },
    {"c": 3, "d": "1", "k": "c0-0", "o": "increment", "i": 5, "r": 6, "v": 3},
    {"c": 3, "d": "1", "k": "r0-1", "o": "delete", "i": 7, "r": 8, "x": True},
    {
        "c": 2,
        "d": "2",
        "k": "r0-1",
        "o": "put",
        "i": 8,
        "r": 9,
        "v": "2.2",
        "e": "BUSY",
        "sure": True,
    },
]
LAST: list[dict[str, Any]] = [
    {"c": 1000, "d": "g", "k": "r0-1", "o": "get", "i": 20, "r": 21, "v": None},
    {"c": 1000, "d": "g", "k": "c0-0", "o": "get", "i": 20, "r": 21, "v": 3},
    {"o": "final", "keys": 2, "failed": 0},
]


def record(*more: dict[str, Any], last: list[dict[str, Any]] | None = None) -> Record:
    clock = {"o": "clock", "i": 0.0, "wall": 0.0}
    entries = [clock, *GOOD, *more, *(LAST if last is None else last)]
    return read(json.dumps(entry) for entry in entries)


def fault(**changes: Any) -> Fault:
    return Fault("split", "some", 1.0, 1.5, 9.0, covered=True)._replace(**changes)


def broken(
    run: Record, *faults: Fault, restarts: tuple[str, ...] = (), unsettled: str = ""
) -> list[str]:
    return [verdict.name for verdict in judge(run, faults, restarts, unsettled) if not verdict.good]


def test_a_good_run_is_good() -> None:
    assert broken(record(), fault()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"c": 4, "d": "0", "k": "r0-1", "o": "get", "i": 9, "r": 9.1, "v": "1.1"},
        {"c": 4, "d": "0", "k": "r0-1", "o": "get", "i": 2.5, "r": 2.6, "v": "0.1"},
        {"c": 4, "d": "0", "k": "c0-0", "o": "get", "i": 9, "r": 9.1, "v": 4},
        {"c": 4, "d": "0", "k": "r0-1", "o": "put", "i": 10, "r": 10.1, "v": "4.1", "x": False},
        {"c": 4, "d": "0", "k": "r0-1", "o": "put", "i": 4, "r": 4.1, "v": "4.1", "x": False},
    ],
    ids=["read after deletion", "stale read", "read of the future", "lost write", "wrong existed"],
)
def test_an_answer_that_no_order_explains_is_found(wrong: dict[str, Any]) -> None:
    assert broken(record(wrong)) == ["history linearizable"]


def test_a_write_without_an_answer_may_have_happened_or_not() -> None:
    maybe = {"c": 4, "d": "0", "k": "r0-1", "o": "put", "i": 10, "r": 19, "v": "4.1"}
    maybe |= {"e": "ConnectionResetError", "sure": False}
    assert broken(record(maybe)) == []
    seen = {"c": 5, "d": "0", "k": "r0-1", "o": "get", "i": 19, "r": 19.5, "v": "4.1"}
    gone = [{**LAST[0], "v": "4.1"}, *LAST[1:]]
    assert broken(record(maybe, seen, last=gone)) == []
    refused = {**maybe, "e": "NOQUORUM", "sure": True}
    assert broken(record(refused, seen, last=gone)) == ["history linearizable"]


def test_loss_and_corruption_are_never_excused() -> None:
    for code in ("DATALOST", "corrupt", "WRONG VALUE"):
        bad = {"c": 4, "d": "0", "k": "r0-1", "o": "get", "i": 9, "r": 9.1, "e": code, "sure": True}
        assert broken(record(bad)) == ["every key read at the end, nothing lost or corrupt"]


def test_a_run_whose_end_was_not_read_is_not_good() -> None:
    assert len(broken(record(last=[]))) == 1
    assert len(broken(record(last=[*LAST[:2], {"o": "final", "keys": 2, "failed": 1}]))) == 1


def test_an_answer_of_a_minority_is_found() -> None:
    cut = fault(proven=1.2, cut_off=("0",), ended=4.0)
    refused = {"c": 4, "d": "0", "k": "r0-1", "o": "put", "i": 3, "r": 3.1, "v": "4.1"}
    refused |= {"e": "NOQUORUM", "sure": True}
    assert broken(record(refused), cut) == []  # what was answered was asked within the grace
    late = {"c": 4, "d": "0", "k": "r0-1", "o": "get", "i": 3.5, "r": 3.6, "v": "1.1"}
    assert broken(record(late), cut) == ["a minority refuses"]
    assert broken(record(), cut) == ["a minority refuses"]  # nobody asked: nothing was shown
    assert broken(record(late), cut._replace(proven=None)) == []


def test_a_silence_of_writes_is_found_unless_the_promise_does_not_cover_it() -> None:
    long = fault(began=8.5, ended=19.0)
    assert broken(record(), long) == ["writes go on within 10 s"]
    assert broken(record(), long._replace(covered=False)) == []


def test_a_fault_that_was_not_real_is_no_success() -> None:
    assert broken(record(), fault(failed="not seen")) == ["every fault was really done"]


def test_restarts_must_be_explained() -> None:
    once = fault(excused=("store-1",))
    name = ["nothing restarted without a reason"]
    assert broken(record(), once, restarts=("store-1",)) == []
    assert broken(record(), once, restarts=("store-1", "store-1")) == name
    assert broken(record(), once, restarts=("store-2",)) == name


def test_a_cluster_that_is_not_well_in_the_end_is_not_good() -> None:
    assert len(broken(record(), unsettled="3 shards are missing")) == 1


@pytest.mark.parametrize("size", SIZES)
def test_values_say_what_they_are(size: int) -> None:
    value = value_of("3.17", size)
    assert token_of(value) == "3.17"
    assert len(value) >= size
    for changed in (value[:-1], value + b"x", value.replace(b"3.17", b"3.18", 1)):
        with pytest.raises(ValueError, match=r"not as written|not enough values"):
            token_of(changed)


def test_figures_of_each_second() -> None:
    operations = record().operations
    rates = throughput(operations, 1.0, 5.0)
    assert rates == [2, 2, 1, 0, 0]
    medians = latencies(operations, 1.0, 5.0)
    assert len(medians) == len(rates)
    assert max(slow for _, slow in medians) == pytest.approx(1.0)
    assert longest_silence([1, 2, 9], 2.5, 8.0) == 6.5
    assert longest_silence([], 2.0, 14.0) == 12.0
