"""Replacement, layout epochs, retirement, owners: one change for each entry."""

from __future__ import annotations

import pytest
from unit.machine.support import CONFIGURATION, MEMBERS, World

from distkv.core.configuration import Configuration
from distkv.ids import Member
from distkv.machine import commands as c
from distkv.machine.interface import ChangeRefused, ConfigurationChanged, Event, OutcomeKind
from distkv.operations import Delete, Put

OWNER = "owner-one"


def change(world: World, body: bytes) -> Event:
    world.take_events()
    world.entry(c.entry_configuration(world.now, body))
    (event,) = world.take_events()
    before = world.machine.configuration, world.machine.membership.layouts
    world.reload()
    assert (world.machine.configuration, world.machine.membership.layouts) == before
    return event


def refused(world: World, body: bytes) -> str:
    before = world.machine.configuration
    event = change(world, body)
    assert isinstance(event, ChangeRefused)
    assert event.slot == world.machine.applied
    assert world.machine.configuration == before
    return event.reason


def replaced(ordinal: int, incarnation: int) -> tuple[Member, ...]:
    return tuple(Member(i, incarnation) if i == ordinal else m for i, m in enumerate(MEMBERS))


def test_replace_is_a_compare_and_set() -> None:
    world = World()
    event = change(world, c.change_replace(OWNER, 2, 102, 202))
    assert event == ConfigurationChanged(
        world.machine.applied,
        CONFIGURATION._replace(members=replaced(2, 202)),
        (Member(2, 102),),
    )
    assert "does not hold" in refused(world, c.change_replace(OWNER, 2, 102, 302))
    assert "does not hold" in refused(world, c.change_replace(OWNER, 9, 102, 302))
    assert "does not hold" in refused(world, c.change_replace(OWNER, 1, 202, 302))
    assert "member already" in refused(world, c.change_replace(OWNER, 1, 101, 103))
    assert "member already" in refused(world, c.change_replace(OWNER, 1, 101, 101))
    # A joiner may lose its disk too: the next one takes its place.
    assert isinstance(change(world, c.change_replace(OWNER, 2, 202, 302)), ConfigurationChanged)


def test_a_removed_incarnation_never_returns() -> None:
    world = World()
    change(world, c.change_replace(OWNER, 2, 102, 202))
    for ordinal, old in ((2, 202), (3, 103)):
        assert "never admitted" in refused(world, c.change_replace(OWNER, ordinal, old, 102))
    members = (*MEMBERS[:2], Member(2, 202), *MEMBERS[3:], Member(5, 102))
    layout = Configuration(2, 4, 2, members)
    assert "never admitted" in refused(world, c.change_layout(OWNER, layout))
    (outcome,) = world.commands(c.pack_boot(102, 2, 5, 1))
    assert outcome.kind is OutcomeKind.REFUSED


def test_only_the_owner_changes_anything_and_hands_over() -> None:
    world = World()
    assert "owned by" in refused(world, c.change_replace("other", 2, 102, 202))
    assert "owned by" in refused(world, c.change_owner("other", "other"))
    assert isinstance(change(world, c.change_owner(OWNER, "next")), ConfigurationChanged)
    assert "owned by" in refused(world, c.change_replace(OWNER, 2, 102, 202))
    assert isinstance(change(world, c.change_replace("next", 2, 102, 202)), ConfigurationChanged)


def test_a_layout_epoch_grows_and_the_old_one_retires_at_zero() -> None:
    world = World()
    old, new = world.dispersed(), world.dispersed(epoch=2, data_shards=4)
    world.write_raw(*c.wire_mutations([Put(b"a", b"")], {0: old}))
    members = (*MEMBERS, Member(5, 105))
    layout = Configuration(2, 4, 2, members)
    assert change(world, c.change_layout(OWNER, layout)) == ConfigurationChanged(
        world.machine.applied, layout, ()
    )
    assert "1 records" in refused(world, c.change_retire(OWNER, 1))
    new = new._replace(holders=members)
    assert world.write_raw(c.wire_restripe(b"a", old.value_id, new)).kind is OutcomeKind.APPLIED
    assert world.machine.membership.records == {1: 0, 2: 1}
    assert "not an old one" in refused(world, c.change_retire(OWNER, 2))
    assert change(world, c.change_retire(OWNER, 1)) == ConfigurationChanged(
        world.machine.applied, layout, ()
    )
    assert "not an old one" in refused(world, c.change_retire(OWNER, 1))
    assert world.machine.membership.records == {2: 1}
    world.reload()
    assert world.machine.membership.records == {2: 1}


def test_members_of_a_retired_epoch_leave_for_ever() -> None:
    world = World()
    world.write_raw(*c.wire_mutations([Put(b"a", b"")], {0: world.dispersed()}))
    world.commands(c.pack_boot(104, 4, 1, 1))
    smaller = Configuration(2, 2, 1, MEMBERS[:3])
    assert change(world, c.change_layout(OWNER, smaller)) == ConfigurationChanged(
        world.machine.applied, smaller, ()
    )
    # An extra node of the old epoch can still be replaced: its shards are needed.
    event = change(world, c.change_replace(OWNER, 3, 103, 203))
    assert event == ConfigurationChanged(world.machine.applied, smaller, (Member(3, 103),))
    world.results(Delete(b"a"))
    event = change(world, c.change_retire(OWNER, 1))
    assert event == ConfigurationChanged(
        world.machine.applied, smaller, (Member(3, 203), Member(4, 104))
    )
    assert 104 not in world.machine.membership.boots
    bigger = Configuration(3, 2, 2, (*MEMBERS[:3], Member(3, 203)))
    assert "never admitted" in refused(world, c.change_layout(OWNER, bigger))


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Configuration(3, 3, 2, MEMBERS), "next epoch is 2"),
        (Configuration(1, 3, 2, MEMBERS), "next epoch is 2"),
        (Configuration(2, 4, 2, MEMBERS), "do not match"),
        (Configuration(2, 0, 5, MEMBERS), "data_shards"),
        (Configuration(2, 3, 2, replaced(1, 999)), "changes hands"),
        (Configuration(2, 4, 2, (*MEMBERS, Member(5, 100))), "two ordinals"),
    ],
)
def test_layouts_that_do_not_apply(layout: Configuration, reason: str) -> None:
    world = World()
    assert reason in refused(world, c.change_layout(OWNER, layout))


def test_founding_checks_its_configuration() -> None:
    with pytest.raises(ValueError, match="members do not match"):
        World(Configuration(1, 3, 1, MEMBERS))


def test_state_events_tell_the_present_state() -> None:
    world = World()
    world.commands(c.pack_boot(101, 1, 4, 1), c.pack_settled(101, 1, 4), c.pack_settled(101, 4, 7))
    world.reload()
    assert [repr(event) for event in world.machine.state_events()] == [
        "BarrierRaised(barrier=Ballot(round=0, ordinal=0, incarnation=0))",
        "Booted(incarnation=100, boot=1)",
        "Settled(incarnation=100, boot=1, counter=0)",
        "Booted(incarnation=101, boot=4)",
        "Settled(incarnation=101, boot=4, counter=7)",
        repr(ConfigurationChanged(world.machine.applied, CONFIGURATION, ())),
        "Formed()",
    ]
