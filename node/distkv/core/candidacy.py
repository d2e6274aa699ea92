"""Phase 1a: one node asks for the promises that make it leader of one ballot."""

from __future__ import annotations

from distkv.core.messages import Prepare, Promise
from distkv.core.phase_one import PhaseOne
from distkv.core.shared import Shared
from distkv.ids import Ballot, Member


class Candidacy:
    """Ends when it is elected, refused, or the election time-out begins another.

    The ballot is made durable before anybody hears of it, so that it can never be used
    twice; the candidate's own promise counts from then on.
    """

    __slots__ = ("_number", "_sent", "_shared", "phase")

    def __init__(self, shared: Shared, ballot: Ballot) -> None:
        self._shared = shared
        self.phase = PhaseOne(ballot)
        shared.hard.promise(ballot)
        shared.out.must_flush = True
        self._number = shared.out.number
        self._sent = shared.now
        for member in shared.others():
            self._ask(member)

    @property
    def ballot(self) -> Ballot:
        """What it asks promises for."""
        return self.phase.ballot

    @property
    def elected(self) -> bool:
        """q1 voters promised, this node among them."""
        promised = self.phase.promised
        return self._shared.me in promised and self.phase.complete(self._shared.configuration)

    def _ask(self, member: Member) -> None:
        question = Prepare(self.ballot, self._shared.log.chosen)
        self._shared.out.send_after_flush(member.ordinal, question)

    def tick(self) -> None:
        """Ask again those who have not answered."""
        shared = self._shared
        wait = shared.options.ticks(shared.options.retry)
        if shared.now - self._sent >= wait and shared.me in self.phase.promised:
            self._sent = shared.now
            for member in self.phase.missing(shared.configuration):
                self._ask(member)

    def persisted(self, number: int) -> None:
        """The own promise is durable with the batch that holds the ballot."""
        log, me = self._shared.log, self._shared.me
        if number >= self._number and me not in self.phase.promised:
            self.phase.add(me, log.chosen, log.accepted_above(log.chosen), log.chosen + 1)

    def on_promise(self, sender: Member, message: Promise) -> None:
        """Count it, unless its sender lost durable state."""
        if message.ballot == self.ballot and self._shared.peers.trusted(sender):
            self.phase.add(sender, message.chosen, message.entries, self._shared.log.chosen + 1)
