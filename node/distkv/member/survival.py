"""How many more failures the cluster survives at this moment, with and without loss.

Two numbers, both lower bounds: what is not known for certain counts as not there, and where
it would make a difference the answer is None, never a guess.

available: so many more nodes may stop, whichever they are, and reads and writes go on. Three
    conditions: q1 voters are left (a leader keeps its office), f + 1 nodes with room on their
    disks are (a put needs so many holders), and every coded record has k_e shards on the nodes
    left.
durable: so many more disks may be lost, whichever they are, and no acknowledged value is lost.
    Two conditions again: every coded record has k_e shards on the disks left, and the newest
    metadata are on one of them. A disk counts as lost already if its node does not answer or
    if another incarnation sits in its place; `durable_if_silent_return` counts the disks of
    nodes that only do not answer as whole. A shard that is missing or was found rotten counts
    as lost until it is rebuilt.

Of what was acknowledged in the last few seconds only f is promised, because peers tell how
far they are once a second: `durable` speaks of what is older (`SETTLED_SECONDS`). Losing more
than f disks leaves no quorum even where `durable` is higher (m > f); recovery is by hand then.

Shards are counted by node, not record by record: a node that lacks one shard counts as one
that lacks all. So the bound is exact once nodes are whole, and never too high before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from distkv.core.configuration import Configuration
from distkv.ids import Member

SETTLED_SECONDS = 5.0
"""More than a node waits before it calls a shard missing, and than until its next greeting."""


class Standing(NamedTuple):
    """What is known of one member. `up`: this very incarnation is connected; `replaced`:
    another one sits in its place, so that its disk is lost; `missing`: shards it lacks, None if
    unknown; `durable`: every slot up to it is on its disk; `full`: its disk takes no shards."""

    up: bool
    replaced: bool = False
    voting: bool = False
    missing: int | None = None
    durable: int = 0
    full: bool = False


class Survival(NamedTuple):
    """See the module; None is unknown."""

    available: int | None
    durable: int | None
    durable_if_silent_return: int | None


UNKNOWN = Survival(None, None, None)
_GONE = Standing(False)


def survival(
    newest: Configuration,
    coded: Sequence[Configuration],
    standings: Mapping[Member, Standing],
    settled: int,
) -> Survival:
    """`coded`: layouts that coded records name; `settled`: a slot that was applied
    SETTLED_SECONDS ago. Members without a standing count as silent."""
    seen = {
        member: standings.get(member, _GONE)
        for layout in (newest, *coded)
        for member in layout.members
    }
    there = [seen[member] for member in newest.members if seen[member].up]
    quorum = sum(standing.voting for standing in there) - newest.phase_one
    room = sum(not standing.full for standing in there) - (newest.failures + 1)
    return Survival(
        _surely(*_margins(coded, seen, False), min(quorum, room)),
        _surely(*_margins(coded, seen, False), _copies(newest, seen, settled, False) - 1),
        _surely(*_margins(coded, seen, True), _copies(newest, seen, settled, True) - 1),
    )


def _surely(low: int | None, high: int | None, other: int) -> int | None:
    """The smaller of a margin of shards, if that is known for certain, and `other`."""
    if low is None or high is None:
        return max(0, other)
    least, most = max(0, min(low, other)), max(0, min(high, other))
    return least if least == most else None


def _margins(
    coded: Sequence[Configuration], seen: Mapping[Member, Standing], silent_return: bool
) -> tuple[int | None, int | None]:
    """Shards beyond those needed, at least and at most: the least over all layouts; None
    without coded records."""
    lows, highs = [], []
    for layout in coded:
        standings = [seen[member] for member in layout.members]
        there = [s for s in standings if s.up or (silent_return and not s.replaced)]
        whole = sum(s.missing == 0 if s.up else True for s in there)
        unknown = sum(s.up and s.missing is None for s in there)
        lows.append(whole - layout.data_shards)
        highs.append(whole + unknown - layout.data_shards)
    return min(lows, default=None), min(highs, default=None)


def _copies(
    newest: Configuration, seen: Mapping[Member, Standing], settled: int, silent_return: bool
) -> int:
    """Members whose disks hold the metadata up to `settled`."""
    held = sum(seen[m].up and seen[m].durable >= settled for m in newest.members)
    if silent_return:
        # What was chosen is on q2 disks, whichever they are; those of silent nodes count here.
        lost = sum(seen[m].replaced for m in newest.members)
        held = max(held, newest.phase_two - lost)
    return held
