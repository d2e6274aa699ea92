"""A command loses the holders that are gone, and nothing else."""

from __future__ import annotations

from distkv.data.messages import Code
from distkv.ids import Ballot, Member, ValueId, node_session
from distkv.machine.commands import (
    Dispersed,
    pack_tick,
    pack_write,
    wire_mutations,
    wire_restripe,
)
from distkv.machine.holders import without_holders
from distkv.machine.parsing import parse_command
from distkv.operations import Condition, Delete, Must, Put

HOLDERS = tuple(Member(i, 100 + i) for i in range(5))
SESSION = node_session(100, 1)


def dispersed(counter: int, holders: tuple[Member, ...]) -> Dispersed:
    value_id = ValueId(100, 1, counter)
    return Dispersed(value_id, Code(3, 5, 512), 9000, 7, Ballot(3, 0, 100), 1, holders)


def command(holders: tuple[Member, ...]) -> bytes:
    puts = (
        Put(b"a", b"", condition=Condition(Must.HAVE_VERSION, 5)),
        Put(b"b", b"inline"),
        Delete(b"c"),
    )
    mutations = wire_mutations(puts, {0: dispersed(1, holders)})
    mutations += (wire_restripe(b"d", ValueId(1, 1, 1), dispersed(2, holders)),)
    return pack_write(SESSION, 4, 2, False, mutations)


def test_the_holders_that_are_gone_are_taken_off_every_list() -> None:
    gone = [Member(1, 101), Member(4, 104)]
    kept = tuple(holder for holder in HOLDERS if holder not in gone)
    struck = without_holders(command(HOLDERS), gone)
    assert struck == command(kept)
    assert parse_command(struck) == parse_command(command(kept))


def test_other_incarnations_and_other_commands_stay_as_they_are() -> None:
    assert without_holders(command(HOLDERS), [Member(1, 999), Member(7, 101)]) == command(HOLDERS)
    assert without_holders(pack_tick(), list(HOLDERS)) == pack_tick()
