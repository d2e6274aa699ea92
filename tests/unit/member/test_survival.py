"""The budget of failures: never more than the truth, and the truth where all is known."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkv.core.configuration import Configuration
from distkv.ids import Member
from distkv.member.survival import Standing, Survival, survival

WHOLE = Standing(up=True, voting=True, missing=0, durable=10)
SILENT = Standing(up=False)
REPLACED = Standing(up=False, replaced=True)


def layout(k: int, m: int, epoch: int = 1) -> Configuration:
    return Configuration(epoch, k, m, tuple(Member(o, 100 + o) for o in range(k + m)))


def of(configuration: Configuration, *standings: Standing, coded: bool = True) -> Survival:
    seen = dict(zip(configuration.members, standings, strict=True))
    return survival(configuration, [configuration] if coded else [], seen, 10)


@pytest.mark.parametrize(
    ("k", "m", "available", "durable"),
    [
        (3, 2, 2, 2),
        (4, 2, 2, 2),
        (2, 1, 1, 1),
        (1, 0, 0, 0),
        (1, 2, 1, 2),
        (2, 3, 2, 3),
        (1, 1, 0, 1),
    ],
)
def test_a_whole_cluster(k: int, m: int, available: int, durable: int) -> None:
    five = layout(k, m)
    assert of(five, *[WHOLE] * five.size) == (available, durable, durable)


def test_a_silent_node_counts_as_lost_unless_it_comes_back() -> None:
    assert of(layout(3, 2), *[WHOLE] * 4, SILENT) == (1, 1, 2)
    assert of(layout(3, 2), *[WHOLE] * 3, SILENT, SILENT) == (0, 0, 2)


def test_a_lost_disk_is_lost_whoever_sits_there() -> None:
    assert of(layout(3, 2), *[WHOLE] * 4, REPLACED) == (1, 1, 1)
    assert of(layout(3, 2), *[WHOLE] * 3, REPLACED, REPLACED) == (0, 0, 0)
    assert of(layout(3, 2), *[WHOLE] * 3, REPLACED, SILENT) == (0, 0, 1)


def test_a_node_that_lacks_shards_counts_for_none_of_them() -> None:
    refilling = WHOLE._replace(missing=1)
    assert of(layout(3, 2), *[WHOLE] * 4, refilling) == (1, 1, 1)


def test_without_coded_values_only_the_metadata_count() -> None:
    refilling = WHOLE._replace(missing=7)
    assert of(layout(3, 2), *[WHOLE] * 4, refilling, coded=False) == (2, 4, 4)


def test_what_is_not_counted_yet_makes_the_answer_unknown_where_it_matters() -> None:
    uncounted = WHOLE._replace(missing=None)
    assert of(layout(3, 2), *[WHOLE] * 4, uncounted) == (None, None, None)
    # Whatever it lacks, nobody else may fail.
    assert of(layout(3, 2), *[WHOLE] * 2, SILENT, SILENT, uncounted)[:2] == (0, 0)


def test_a_node_that_may_not_vote_yet_helps_no_quorum() -> None:
    assert of(layout(3, 2), *[WHOLE] * 4, WHOLE._replace(voting=False)) == (1, 2, 2)


def test_a_full_disk_takes_part_in_quorums_and_holds_nothing_new() -> None:
    full = WHOLE._replace(full=True)
    assert of(layout(3, 2), *[WHOLE] * 4, full) == (1, 2, 2)
    assert of(layout(3, 2), *[WHOLE] * 3, full, full) == (0, 2, 2)
    assert of(layout(3, 2), *[full] * 5) == (0, 2, 2), "nothing can be written as it is"
    # The one that stopped may as well be the full one.
    assert of(layout(3, 2), *[WHOLE] * 4, SILENT) == (1, 1, 2)
    assert of(layout(3, 2), *[WHOLE] * 3, full, SILENT)[0] == 0
    assert of(layout(2, 3), *[WHOLE] * 4, full) == (1, 3, 3)


def test_metadata_that_only_a_quorum_has() -> None:
    behind = WHOLE._replace(durable=9)
    assert of(layout(1, 2), WHOLE, WHOLE, behind, coded=False) == (1, 1, 1)


def test_the_weakest_of_two_layouts_counts() -> None:
    old, new = layout(3, 2), layout(4, 2, 2)
    seen = dict.fromkeys(new.members, WHOLE) | {new.members[4]: REPLACED}
    assert survival(new, [old, new], seen, 10) == (1, 1, 1)
    assert survival(new, [old], seen, 10).durable == 1
    assert survival(new, [new], seen, 10).durable == 1
    surplus = dict.fromkeys(new.members, WHOLE) | {new.members[5]: REPLACED}
    assert survival(old, [old], surplus, 10).durable == 2


def survives_any(records: list[tuple[int, set[int]]], disks: set[int], losses: int) -> bool:
    """Whether every record keeps k_e shards whichever `losses` of `disks` go."""
    return all(
        len(held - set(gone)) >= k_e
        for k_e, held in records
        for gone in combinations(sorted(disks), min(losses, len(disks)))
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_never_more_than_what_the_records_bear(data: st.DataObject) -> None:
    """Against every record and every set of disks, for drawn clusters."""
    k, m = data.draw(st.sampled_from([(3, 2), (2, 1), (4, 2), (2, 3), (1, 2)]))
    five = layout(k, m)
    kinds = st.sampled_from(["whole", "whole", "refilling", "silent", "replaced"])
    drawn = data.draw(st.lists(kinds, min_size=five.size, max_size=five.size))
    lost = {o for o, kind in enumerate(drawn) if kind == "replaced"}
    records: list[tuple[int, set[int]]] = []
    lacks = dict.fromkeys(range(five.size), 0)
    for _ in range(data.draw(st.integers(1, 4))):
        k_e = data.draw(st.integers(1, k))
        held = set(range(five.size)) - lost
        for ordinal, kind in enumerate(drawn):
            if kind == "refilling" and data.draw(st.booleans()):
                held.discard(ordinal)
                lacks[ordinal] += 1
        records.append((k_e, held))
    kinds_of = {"silent": SILENT, "replaced": REPLACED}
    standings = [
        kinds_of.get(kind, WHOLE._replace(missing=lacks[o])) for o, kind in enumerate(drawn)
    ]
    found = of(five, *standings)
    disks = set(range(five.size))
    assert found.available is not None
    assert found.durable is not None
    assert found.durable_if_silent_return is not None
    if found.durable_if_silent_return:
        assert survives_any(records, disks, found.durable_if_silent_return)
    answering = {o for o, kind in enumerate(drawn) if kind in ("whole", "refilling")}
    if found.durable:
        there = [(k_e, held & answering) for k_e, held in records]
        assert survives_any(there, answering, found.durable)
    if found.available:
        there = [(k_e, held & answering) for k_e, held in records]
        assert survives_any(there, answering, found.available)
        assert len(answering) - found.available >= five.phase_one
