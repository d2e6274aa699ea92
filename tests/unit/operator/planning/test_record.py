"""The record of a cluster, as it rests in its Secret."""

from __future__ import annotations

import base64

import pytest

from distkv_operator.planning.record import JOINING_MAX, Holder, Record, from_secret, to_data

from .support import record

ASKING = record(joining={2: (Holder(7, "a"), Holder(8, "b")), 5: (Holder(9, "c"),)})


def read(data: dict[str, str]) -> Record:
    return from_secret({"metadata": {"resourceVersion": "1"}, "data": data})


@pytest.mark.parametrize("written", [record(), ASKING], ids=["plain", "with who may be admitted"])
def test_what_is_written_is_read(written: Record) -> None:
    assert read(to_data(written)) == written


def test_a_record_of_an_earlier_release_is_read() -> None:
    data = to_data(record())
    del data["joining"]
    assert read(data) == record()


@pytest.mark.parametrize("text", ["[]", "{", '{"2": [{}]}', '{"2": 1}', '{"a": []}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    data = to_data(record()) | {"joining": base64.b64encode(text.encode()).decode()}
    with pytest.raises(ValueError, match="does not hold the record"):
        read(data)


def test_who_was_admitted_is_no_longer_asking() -> None:
    after = ASKING.with_member(2, Holder(8, "b"))
    assert after.joining == {5: (Holder(9, "c"),)}


def test_a_directory_is_recorded_once_with_the_claim_it_was_seen_on_last() -> None:
    assert ASKING.with_joining(2, Holder(7, "a")) is ASKING
    moved = ASKING.with_joining(2, Holder(7, "z"))
    assert moved.joining[2] == (Holder(8, "b"), Holder(7, "z"))
    assert moved.claim_of_joining(2, 7) == "z"
    assert moved.claim_of_joining(2, 6) == moved.claim_of_joining(4, 7) == ""


def test_the_record_is_bounded() -> None:
    found = record()
    for number in range(100):
        found = found.with_joining(2, Holder(number, f"claim {number}"))
    assert len(found.joining[2]) == JOINING_MAX
    assert found.is_joining(2, Holder(99, "claim 99"))
