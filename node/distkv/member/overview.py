"""The whole cluster as one member sees it, from the greetings of all the others."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from distkv.ids import Member
from distkv.member.health import lost_count
from distkv.member.messages import Greeting, known
from distkv.member.report import state_of
from distkv.member.survival import SETTLED_SECONDS, UNKNOWN, Standing, Survival, survival
from distkv.member.work import work_of

if TYPE_CHECKING:
    from distkv.member.seat import Seat

Row = dict[str, Any]

SUMMED = (
    *("shards", "shards_missing", "shards_corrupt"),
    *("repair_bytes_done", "repair_bytes_left", "repair_bytes_per_second"),
)
LARGEST = ("values_lost", "repair_seconds_left")


LOOK_SECONDS = 0.5


class Overview:
    """`greeting` is asked at least every second, and whenever somebody looks at the status."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._marks: deque[tuple[float, int]] = deque()
        """(when, applied slot) of the last SETTLED_SECONDS in which all was heard of."""

    def greeting(self) -> Greeting:
        """How far this node is."""
        seat = self._seat
        self._look(seat.kernel.now)
        counters = seat.data.keeper.counters
        replica = seat.replica.status()
        work, missing = work_of(seat), seat.missing
        return Greeting(
            True,
            state_of(seat)[0] == "serving",
            seat.owner.disk_full,
            seat.machine.applied,
            counters.held,
            -1 if missing is None else missing,
            counters.corrupt,
            replica.durable,
            replica.voter,
            state_of(seat)[0],
            lost_count(seat),
            work.done,
            work.left,
            work.rate,
            work.seconds,
            seat.owner.suspicions.total,
            seat.data.repairer.counted(seat.machine.applied),
            seat.start,
            seat.replica.flushes,
            seat.replica.hard.durable_batches,
        )

    def _look(self, now: float) -> None:
        """Remember how far this node is, to know in a while what is old."""
        if not self._sees():
            self._marks.clear()  # what it hears of next may be old already
        elif not self._marks or now - self._marks[-1][0] >= LOOK_SECONDS:
            self._marks.append((now, self._seat.machine.applied))

    def _settled(self) -> int:
        """A slot below which everything is that was applied SETTLED_SECONDS ago: rather some
        younger records, too, than to leave out one."""
        marks, now = self._marks, self._seat.kernel.now
        while marks and now - marks[0][0] > SETTLED_SECONDS:
            marks.popleft()
        return marks[0][1] if marks else self._seat.machine.applied

    def _sees(self) -> bool:
        """Whether this node hears of all that is chosen."""
        seat = self._seat
        newest = seat.machine.membership.configuration
        if seat.owner.peers.members_up(newest) < newest.phase_one:
            return False
        return seat.machine.formed and seat.replica.leader is not None and not self._lags()

    def survival(self) -> Survival:
        """See member.survival; unknown to a node that does not hear a quorum."""
        seat = self._seat
        membership = seat.machine.membership
        newest = membership.configuration
        if not self._sees():
            return UNKNOWN
        settled = self._settled()
        coded = [
            layout
            for epoch, layout in sorted(membership.layouts.items())
            if membership.records.get(epoch)
        ]
        members = {member for layout in (newest, *coded) for member in layout.members}
        standings = {member: self._standing(member, settled) for member in sorted(members)}
        return survival(newest, coded, standings, settled)

    def _lags(self) -> bool:
        """Whether a peer had applied more when it greeted last: there may be records of which
        nothing is known here yet."""
        peers, applied = self._seat.owner.peers, self._seat.machine.applied
        return any(peers.greetings[o].applied > applied for o in peers.up if o in peers.greetings)

    def cluster(self) -> dict[str, object]:
        """The section "cluster" of the status; see member.report."""
        layouts = self._seat.machine.membership.layouts.values()
        members = sorted({member for layout in layouts for member in layout.members})
        rows = [self._row(member) for member in members]
        whole: dict[str, object] = {name: _sum(rows, name) for name in SUMMED}
        whole |= {name: _largest(rows, name) for name in LARGEST}
        whole |= self.under_coded()
        whole["survives"] = self.survival()._asdict()
        whole["members"] = rows
        return whole

    def under_coded(self) -> dict[str, object]:
        """Values coded otherwise than the newest layout wants: the same on every node."""
        restriper = self._seat.data.restriper
        census, seconds = restriper.census, restriper.seconds_left
        return {
            "under_coded": census.records if census.known else None,
            "under_coded_bytes": census.bytes if census.known else None,
            "under_coded_seconds_left": None if seconds is None else math.ceil(seconds),
        }

    # -- one member

    def _greeting(self, member: Member) -> Greeting | None:
        """The last one of this very incarnation while it is connected; the own one is fresh."""
        seat = self._seat
        if member == seat.member:
            return seat.greeting()
        if not seat.owner.peers.is_up(member):
            return None
        return seat.owner.peers.greetings.get(member.ordinal)

    def _disk_lost(self, member: Member) -> bool:
        """Another incarnation sits in its place, or its directory went back in time."""
        seat = self._seat
        if member.ordinal == seat.member.ordinal:
            return member != seat.member
        if not seat.replica.records.trusted(member):
            return True
        there = seat.owner.peers.up.get(member.ordinal)
        return there is not None and there.incarnation != member.incarnation

    def _standing(self, member: Member, settled: int) -> Standing:
        greeting = self._greeting(member)
        if greeting is None:
            return Standing(self._seat.owner.peers.is_up(member), self._disk_lost(member))
        missing = known(greeting.shards_missing)
        if greeting.counted < settled:
            missing = None  # it has yet to look for values that count here
        return Standing(True, False, greeting.voting, missing, greeting.durable, greeting.disk_full)

    def _row(self, member: Member) -> Row:
        greeting = self._greeting(member)
        row: Row = {
            "ordinal": member.ordinal,
            "incarnation": member.incarnation,
            "up": self._seat.owner.peers.is_up(member),
            "disk_lost": self._disk_lost(member),
            "role": None if greeting is None else self._role(member, greeting),
            "state": None if greeting is None else greeting.state,
            "serving": greeting is not None and greeting.serving,
            "applied": None if greeting is None else greeting.applied,
            "disk_full": None if greeting is None else greeting.disk_full,
            "suspicions": None if greeting is None else greeting.suspicions,
        }
        return row | self._shards(member, greeting, row["disk_lost"])

    def _role(self, member: Member, greeting: Greeting) -> str:
        if member == self._seat.replica.leader:
            return "leader"
        return "follower" if greeting.voting else "learner"

    def _shards(self, member: Member, greeting: Greeting | None, disk_lost: bool) -> Row:
        if greeting is not None:
            return {
                "shards": greeting.shards_held,
                "shards_missing": known(greeting.shards_missing),
                "shards_corrupt": greeting.shards_corrupt,
                "values_lost": known(greeting.values_lost),
                "repair_bytes_done": greeting.repair_done,
                "repair_bytes_left": known(greeting.repair_left),
                "repair_bytes_per_second": greeting.repair_rate,
                "repair_seconds_left": known(greeting.repair_seconds),
            }
        names = (*SUMMED, *LARGEST)
        row: Row = dict.fromkeys(names)
        if disk_lost:
            # Whoever sits there now holds nothing that counts before it is admitted.
            row |= {"shards": 0, "shards_corrupt": 0, "values_lost": 0, "repair_bytes_done": 0}
            due, _ = self._seat.machine.membership.due(member)
            row |= {"repair_bytes_per_second": 0, "shards_missing": due}
        return row


def _sum(rows: list[Row], name: str) -> int | None:
    """Of all members; None if one is not known."""
    counts = [row[name] for row in rows]
    return None if None in counts else sum(counts)


def _largest(rows: list[Row], name: str) -> int | None:
    """Of those that are known; None if none is."""
    return max((row[name] for row in rows if row[name] is not None), default=None)
