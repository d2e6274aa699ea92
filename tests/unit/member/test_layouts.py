"""What the leader refuses about layouts, and when an old epoch ends."""

from __future__ import annotations

import pytest
from unit.member.alone import CLUSTER, HEALTHY, Alone

from distkv.errors import BadRequest, DistKVError
from distkv.ids import Member as Seated
from distkv.member import admission, layouts
from distkv.member.soundness import ForeignOwner, NotYet
from distkv.member.standing import Standing, standing_of
from distkv.transport.base import Identity


def change(alone: Alone, k: int, m: int, owner: str = "owner", first: int = 100) -> bool:
    members = tuple(Seated(i, first + i) for i in range(k + m))
    return layouts.change(alone.seat, owner, k, m, members)


def refused(alone: Alone, kind: type[DistKVError], text: str, *asked: object) -> None:
    epoch = alone.seat.machine.membership.epoch
    with pytest.raises(kind, match=text):
        change(alone, *asked)  # type: ignore[arg-type]
    alone.step(0.2)
    assert alone.seat.machine.membership.epoch == epoch


def test_refusals_name_what_is_wrong_and_change_nothing() -> None:
    alone = Alone()
    refused(alone, ForeignOwner, "another owner", 1, 0, "somebody")
    refused(alone, BadRequest, "data_shards must be at least 1", 0, 1)
    refused(alone, BadRequest, "parity_shards must be at least 0", 2, -1)
    refused(alone, BadRequest, "at most 12 nodes", 9, 4)
    refused(alone, BadRequest, "ordinal 0 is held by incarnation 100, not 200", 1, 1, "owner", 200)
    refused(alone, NotYet, "incarnation 101 at ordinal 1 is not connected", 1, 1)
    alone.appear(1, HEALTHY._replace(disk_full=True))
    refused(alone, NotYet, "the disk of node 1 is full", 1, 1)
    with pytest.raises(BadRequest, match="two have the same incarnation"):
        layouts.change(alone.seat, "owner", 1, 1, (Seated(0, 100), Seated(1, 100)))
    assert change(alone, 1, 0), "it is so already"


def test_a_learner_is_fed_until_it_is_gone_and_never_counts() -> None:
    alone = Alone()
    alone.appear(1)
    alone.step(0.3)
    peers = {p.member: p.voter for p in alone.seat.replica.status().peers}
    assert peers == {Seated(1, 101): False}
    assert [w["ordinal"] for w in layouts.progress(alone.seat)["waiting"]] == [1]  # type: ignore[attr-defined]
    alone.member.peer_down(Identity(CLUSTER, 0, 1, 101, 1))
    alone.step(0.3)
    assert alone.seat.replica.status().peers == ()


def test_growing_and_going_back_retires_what_no_record_names() -> None:
    alone = Alone()
    for ordinal in (1, 2):
        alone.appear(ordinal)
    assert not change(alone, 1, 2)
    alone.until(lambda: alone.seat.machine.membership.epoch == 2)
    told = layouts.progress(alone.seat)
    assert (told["data_shards"], told["parity_shards"], told["epoch"]) == (1, 2, 2)
    assert [e["epoch"] for e in told["epochs"]] == [1, 2]  # type: ignore[attr-defined]
    assert told["failures_wanted"] == 1
    # Nobody answers for the two others: nothing more can be chosen by f + 1 = 2.
    assert alone.seat.replica.status().changing
    refused(alone, NotYet, r"1 members of the layout 1 \+ 2 are up .* start nodes \[1, 2\]", 2, 1)


def test_f_is_claimed_only_where_the_new_layout_is_on_the_disks_of_f_and_one_members() -> None:
    alone = Alone()
    for ordinal in (1, 2):
        alone.appear(ordinal)
    assert not change(alone, 1, 2)
    alone.until(lambda: alone.seat.machine.membership.epoch == 2)
    applied = alone.seat.machine.applied
    # Both others have applied it, but none has it on its disk: no disk may be lost yet.
    assert layouts.progress(alone.seat)["failures"] == 0
    alone.appear(1, HEALTHY._replace(durable=applied - 1))
    assert layouts.progress(alone.seat)["failures"] == 0
    alone.appear(1, HEALTHY._replace(durable=applied))
    assert layouts.progress(alone.seat)["failures"] == 1


def test_a_request_that_follows_an_older_epoch_is_refused() -> None:
    alone = Alone()
    alone.appear(1)
    members = (Seated(0, 100), Seated(1, 101))
    before = alone.seat.machine.membership.epoch
    with pytest.raises(NotYet, match=f"epoch is {before}, and this was asked for when it was 0"):
        layouts.change(alone.seat, "owner", 2, 0, members, epoch=0)
    assert not layouts.change(alone.seat, "owner", 2, 0, members, epoch=before)
    alone.until(lambda: alone.seat.machine.membership.epoch == before + 1)
    with pytest.raises(NotYet, match="look again"):
        layouts.change(alone.seat, "owner", 1, 0, members[:1], epoch=before)
    assert layouts.change(alone.seat, "owner", 2, 0, members, epoch=before), "it is so already"


def test_a_replacement_of_an_unknown_seat_is_refused() -> None:
    alone = Alone()
    with pytest.raises(BadRequest, match="between 0 and 0"):
        admission.replace(alone.seat, "owner", 1, 101, 201)
    with pytest.raises(BadRequest, match="old is 7, but ordinal 0 is held by 100"):
        admission.replace(alone.seat, "owner", 0, 7, 201)
    assert standing_of(alone.seat) is Standing.VOTER
