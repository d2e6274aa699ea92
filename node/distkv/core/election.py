"""When to stand for election, and for whom to vote in the trial run (pre-vote).

The pre-vote (Raft dissertation, section 9.6) keeps a node that was cut off from deposing a
leader that serves everybody else: it gets a real ballot only if q1 voters, too, hear none.
"""

from __future__ import annotations

from enum import Enum

from distkv.core.messages import PreVote, PreVoteReply
from distkv.core.shared import Shared
from distkv.ids import ZERO_BALLOT, Ballot, Member


class Role(Enum):
    """What a replica does about leadership now."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


_NEVER = -1_000_000


class Election:
    """Timers and the pre-vote. Times are in ticks."""

    __slots__ = ("_grants", "_shared", "ballot", "deadline", "heard", "highest_round")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.heard = _NEVER
        """When a valid leader (or a candidate we promised) was last heard."""
        self.ballot = ZERO_BALLOT
        """The ballot asked for in the pre-vote."""
        self.highest_round = 0
        self._grants: dict[Member, None] = {}
        options = shared.options
        low, high = options.ticks(options.election_min), options.ticks(options.election_max)
        # At the start nobody is known to lead: a cold cluster should not wait a whole time-out.
        self.deadline = shared.now + shared.rng.randint(max(1, low // 6), max(2, high // 2))

    def restart_timer(self) -> None:
        """Wait a whole, newly drawn time-out."""
        o = self._shared.options
        self.deadline = self._shared.now + self._shared.rng.randint(
            o.ticks(o.election_min), o.ticks(o.election_max)
        )

    def hear(self) -> None:
        """A valid leader spoke."""
        self.heard = self._shared.now
        self.restart_timer()

    def leader_lost(self) -> None:
        """The transport lost the leader: stand soon; the jitter keeps voters apart."""
        self.heard = _NEVER
        self._stand_soon(0)

    def _stand_soon(self, earliest: int) -> None:
        options = self._shared.options
        jitter = self._shared.rng.randint(earliest, options.ticks(options.election_jitter))
        self.deadline = min(self.deadline, self._shared.now + jitter)

    def hears_leader(self) -> bool:
        """Whether a leader was heard within the shortest time-out."""
        o = self._shared.options
        return self._shared.now - self.heard < o.ticks(o.election_min)

    def next_ballot(self) -> Ballot:
        """Above everything promised or seen."""
        me = self._shared.me
        top = max(self._shared.hard.promised.round, self.highest_round)
        return Ballot(top + 1, me.ordinal, me.incarnation)

    def note_ballot(self, ballot: Ballot) -> None:
        """Somebody promised this: an own ballot must be above it."""
        self.highest_round = max(self.highest_round, ballot.round)

    # -- the pre-vote

    def begin(self) -> bool:
        """Ask all voters; True if the own vote is enough already."""
        shared = self._shared
        self.ballot = self.next_ballot()
        self._grants = {shared.me: None}
        self.restart_timer()
        question = PreVote(self.ballot, shared.log.chosen)
        for member in shared.others():
            shared.out.send(member.ordinal, question)
        return self._won()

    def on_pre_vote(self, sender: Member, message: PreVote, leads: bool) -> None:
        """Answer; a refusal says why by what it carries."""
        shared = self._shared
        granted = (
            not leads
            and shared.may_vote()
            and shared.configuration.is_voter(sender)
            and shared.peers.trusted(sender)
            and message.ballot > shared.hard.promised
            and not self.hears_leader()
            and message.chosen + 1 >= shared.log.first
        )
        shared.out.send(
            sender.ordinal,
            PreVoteReply(message.ballot, granted, shared.hard.promised, shared.log.chosen),
        )

    def on_reply(self, sender: Member, message: PreVoteReply) -> bool:
        """True if this grant completed the quorum."""
        if message.ballot != self.ballot:
            return False
        if message.granted:
            if self._won() or not self._shared.peers.trusted(sender):
                return False
            self._grants[sender] = None
            return self._won()
        if message.promised >= self.ballot:
            self.note_ballot(message.promised)
            self._stand_soon(1)
        return False

    def _won(self) -> bool:
        configuration = self._shared.configuration
        grants = 0
        for member in configuration.members:
            if member in self._grants:
                grants += 1
        return grants >= configuration.phase_one
