"""Glob patterns, cursors, the memory budget, pipelines, metrics, options."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from distkv.api.budget import MemoryBudget
from distkv.api.flow import run
from distkv.api.metrics import BOUNDS, DoorCollector, DoorMetrics, Series, exposition
from distkv.api.options import Limits
from distkv.api.resp.cursors import Cursors
from distkv.api.resp.encode import encode_ok
from distkv.api.resp.glob import compile_glob, literal_prefix
from distkv.api.resp.pipeline import Pipeline, Slot
from distkv.api.resp.table import Scope
from distkv.kernel import Future


def naive(pattern: bytes, key: bytes) -> bool:
    """`*` and `?` by the book."""
    if not pattern:
        return not key
    if pattern[:1] == b"*":
        return any(naive(pattern[1:], key[i:]) for i in range(len(key) + 1))
    return bool(key) and pattern[:1] in (b"?", key[:1]) and naive(pattern[1:], key[1:])


@given(
    st.text("ab*?", max_size=8).map(str.encode),
    st.text("ab", max_size=8).map(str.encode),
)
def test_stars_and_question_marks(pattern: bytes, key: bytes) -> None:
    assert compile_glob(pattern).matches(key) == naive(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo", b"hllo"]),
        (b"h[^e]llo", [b"hallo", b"hbllo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (b"a\\*b", [b"a*b"], [b"axb"]),
        (b"a[\\]]b", [b"a]b"], [b"a\\b"]),
        (b"a.b", [b"a.b"], [b"axb"]),
        (b"a?c", [b"a\nc", b"a\xffc"], [b"ac"]),
        (b"a[", [], [b"a", b"a["]),
        (b"", [b""], [b"x"]),
    ],
)
def test_classes_and_escapes(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    glob = compile_glob(pattern)
    assert all(glob.matches(key) for key in yes)
    assert not any(glob.matches(key) for key in no)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_pattern_is_a_pattern(pattern: bytes, key: bytes) -> None:
    if compile_glob(pattern).matches(key):
        assert key.startswith(literal_prefix(pattern))


def test_many_stars_take_no_longer() -> None:
    glob = compile_glob(b"*a" * 40 + b"*b")
    began = time.process_time()
    assert not glob.matches(b"a" * 4096)
    assert time.process_time() - began < 1.0


def test_cursors_are_bounded_and_repeatable() -> None:
    cursors = Cursors(3)
    numbers = [cursors.remember(b"place %d" % i) for i in range(3)]
    assert all(0 < number < 2**63 for number in numbers)
    assert cursors.place(numbers[0]) == b"place 0"
    assert cursors.remember(b"place 0") == numbers[0]
    cursors.remember(b"another")
    assert cursors.place(numbers[1]) is None, "the one unused for longest went"
    assert cursors.place(numbers[0]) == b"place 0"


def test_budget_serves_in_turn() -> None:
    budget = MemoryBudget(100)
    budget.take(100)
    order: list[str] = []
    budget.wait(60, lambda: order.append("first"))
    second = budget.wait(60, lambda: order.append("second"))
    budget.wait(60, lambda: order.append("third"))
    second.cancel()
    budget.give(1)
    assert order == ["first"]
    assert budget.used == 159
    assert budget.full
    budget.give(60)
    assert order == ["first", "third"]
    assert budget.used == 159
    budget.give(159)
    assert not budget.full


class Owner:
    resp3 = False

    def settled(self, slot: Slot, future: Future[object]) -> None:
        raise AssertionError


def slot(scope: Scope, *keys: bytes) -> Slot:
    return Slot(Owner(), encode_ok, Series("x"), 0.0, scope, list(keys))


def test_which_commands_of_a_pipeline_may_overlap() -> None:
    pipeline = Pipeline()
    write, read = slot(Scope.WRITES, b"a"), slot(Scope.READS, b"b")
    pipeline.add(write)
    pipeline.add(read)
    assert pipeline.may_start(Scope.READS, [b"b"])
    assert pipeline.may_start(Scope.READS, [b"b"], depth=3)
    assert not pipeline.may_start(Scope.READS, [b"b"], depth=2)
    assert pipeline.may_start(Scope.WRITES, [b"c"], depth=2)
    assert pipeline.may_start(Scope.WRITES, [b"c"])
    assert pipeline.may_start(Scope.NOTHING, [])
    assert not pipeline.may_start(Scope.READS, [b"c", b"a"])
    assert not pipeline.may_start(Scope.WRITES, [b"a"])
    assert not pipeline.may_start(Scope.WRITES, [b"b"])
    assert not pipeline.may_start(Scope.READS_ALL, [])
    assert not pipeline.may_start(Scope.WRITES_ALL, [])
    pipeline.settled(write)
    assert pipeline.may_start(Scope.READS_ALL, [])
    assert not pipeline.may_start(Scope.WRITES_ALL, [])
    pipeline.settled(read)
    assert pipeline.may_start(Scope.WRITES_ALL, [])
    everything = slot(Scope.WRITES_ALL)
    pipeline.add(everything)
    assert not pipeline.may_start(Scope.READS, [b"z"])
    pipeline.settled(everything)
    assert pipeline.may_start(Scope.READS, [b"z"])


def test_histograms_are_exported_as_prometheus_reads_them() -> None:
    door = DoorMetrics("resp")
    series = door.kind("get")
    for seconds in (0.00005, 0.0001, 0.003, 100.0):
        series.observe(seconds)
    series.errors = 2
    registry = CollectorRegistry()
    registry.register(DoorCollector([door], MemoryBudget(1000)))
    found = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(exposition(registry).decode())
        for sample in family.samples
    }
    assert found["distkv_request_seconds_bucket", "0.0001"] == 2
    assert found["distkv_request_seconds_bucket", "0.005"] == 3
    assert found["distkv_request_seconds_bucket", str(BOUNDS[-1])] == 3
    assert found["distkv_request_seconds_bucket", "+Inf"] == 4
    assert found["distkv_request_seconds_count", None] == 4
    assert found["distkv_request_errors_total", None] == 2
    assert found["distkv_door_memory_limit_bytes", None] == 1000


def test_a_flow_goes_on_in_the_call_that_resolves_its_future() -> None:
    first: Future[int] = Future()

    async def steps() -> int:
        return await first + 1

    result = run(steps())
    assert not result.done
    first.set_result(41)
    assert result.result() == 42


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key_bytes_max", 65536),
        ("value_bytes_max", 2**30),
        ("memory_in_flight_max", 1000),
        ("arguments_max", 10),
        ("pipeline_max", 0),
        ("request_seconds", 1e9),
    ],
)
def test_wrong_limits_name_themselves(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(**{field: value})
