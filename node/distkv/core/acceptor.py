"""Phase 1b and 2b: promises, accepted entries, and what of them is durable.

Multi-Paxos (Lamport, Paxos Made Simple, section 3): an acceptor answers a prepare only by a
promise not to accept lower ballots, and accepts anything that it has not promised against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from distkv.core.messages import Accept, Accepted, Prepare, Promise, Refuse
from distkv.core.shared import Shared
from distkv.ids import ZERO_BALLOT, Ballot, Member


class Acceptor:
    """`held`: every slot up to it is known chosen, or accepted in `ballot` (perhaps not yet
    durably). So an acknowledgement is one number, and counting it needs no slot list.
    """

    __slots__ = (
        "_ack_ordinal",
        "_answer_at",
        "_answer_pause",
        "_behind",
        "_durable_ballot",
        "_durable_chosen",
        "_durable_held",
        "_marks",
        "_shared",
        "_told",
        "ballot",
        "held",
        "probe",
    )

    def __init__(self, shared: Shared, behind: Callable[[int, int], None]) -> None:
        """`behind(slot, ordinal)`: that peer knows a chosen slot which we do not hold."""
        self._shared = shared
        self._behind = behind
        self.ballot = ZERO_BALLOT
        self.held = 0
        self.probe = 0
        self._durable_ballot = ZERO_BALLOT
        self._durable_held = 0
        self._durable_chosen = 0
        self._marks: deque[tuple[int, Ballot, int, int]] = deque()
        self._ack_ordinal = -1
        self._answer_at = 0
        self._answer_pause = shared.options.ticks(shared.options.heartbeat // 2)
        self._told = 0

    def adopt_restored(self) -> None:
        """After a restart: what is held in the promised ballot."""
        self.adopt(self._shared.hard.promised)

    # -- phase 1

    def on_prepare(self, sender: Member, message: Prepare) -> bool:
        """True if promised (the answer leaves after the flush); else it is refused."""
        shared = self._shared
        hard, log = shared.hard, shared.log
        shared.witness.uses(sender, message.ballot)
        if message.ballot < hard.promised or not shared.peers.trusted(sender):
            # Who forgot what it accepted would count itself among those that know of no entry.
            shared.out.send(sender.ordinal, Refuse(hard.promised))
            return False
        if message.ballot > hard.promised:
            hard.promise(message.ballot)
        above = max(log.chosen, message.chosen)
        promise = Promise(message.ballot, log.chosen, log.first, tuple(log.accepted_above(above)))
        shared.out.send_after_flush(sender.ordinal, promise)
        return True

    # -- phase 2

    def on_accept(self, sender: Member, message: Accept) -> bool:
        """True if the ballot is valid here (its owner leads); else it is refused."""
        shared = self._shared
        ballot = message.ballot
        if ballot != self.ballot and message.entries:
            # Without any it may be a beat, which comes in no order.
            shared.witness.uses(sender, ballot)
        if ballot < shared.hard.promised:
            shared.out.send(sender.ordinal, Refuse(shared.hard.promised))
            return False
        if ballot != self.ballot:
            self.adopt(ballot)
        wrote = bool(message.entries) and self._store(sender, message)
        if message.chosen > shared.log.chosen:
            self._learn_chosen(sender, message)
        if wrote:
            shared.out.must_flush = True
            self._ack_ordinal = sender.ordinal
        if message.probe > self.probe:
            self.probe = message.probe
            shared.out.send(sender.ordinal, self._answer_now())
        elif not wrote and self._owes_answer(message):
            shared.out.beat(sender.ordinal, self._answer_now())
        return True

    def _owes_answer(self, message: Accept) -> bool:
        """News of what is chosen need no answer while the leader hears this node anyway."""
        return (
            bool(message.entries)
            or self._shared.now >= self._answer_at
            or self.durable_upto(self.ballot) > self._told
        )

    def answer_next(self) -> None:
        """A connection is new: whatever comes next is answered."""
        self._answer_at = self._shared.now

    def adopt(self, ballot: Ballot) -> None:
        """Follow `ballot`. Entries accepted in other ballots no longer count as held."""
        hard = self._shared.hard
        if ballot > hard.promised:
            hard.promise(ballot)
        self.ballot = ballot
        self.probe = 0
        self._told = self._answer_at = 0
        self.held = self._shared.log.chosen
        self._extend()

    def _store(self, sender: Member, message: Accept) -> bool:
        log = self._shared.log
        slot = message.first
        chosen = log.chosen
        limit = chosen + self._shared.options.ahead_slots
        ballot = self.ballot
        wrote = False
        for entry in message.entries:
            if chosen < slot <= limit:
                have = log.entries.get(slot)
                if have is None or have[0] != ballot:
                    assert have is None or have[0] < ballot, "accepted above the promise"
                    log.put(slot, ballot, entry)
                    wrote = True
                elif have[1] != entry:
                    detail = f"two entries for slot {slot} under {tuple(ballot)}"
                    self._shared.witness.suspect(sender, "equivocation", detail)
            slot += 1
        self._extend()
        return wrote

    def _extend(self) -> None:
        entries = self._shared.log.entries
        held = max(self.held, self._shared.log.chosen)
        ballot = self.ballot
        while True:
            found = entries.get(held + 1)
            if found is None or found[0] != ballot:
                break
            held += 1
        self.held = held

    def _learn_chosen(self, sender: Member, message: Accept) -> None:
        """The leader's chosen prefix is ours only as far as we hold *its* ballot's entries:
        what we accepted in another ballot may be another value."""
        log = self._shared.log
        upto = min(message.chosen, self.held)
        if upto > log.chosen:
            log.chosen = upto
        if message.chosen > log.chosen:
            self._behind(message.chosen, sender.ordinal)

    def chosen_moved(self) -> None:
        """The chosen prefix grew by learning: more may be held now."""
        self._extend()

    def _answer_now(self) -> Accepted:
        """Heartbeats and read confirmations are answered with what is durable already."""
        shared = self._shared
        upto = self.durable_upto(self.ballot)
        self._answered(upto)
        return Accepted(
            self.ballot,
            upto,
            shared.log.chosen,
            self._confirmed_probe(),
            shared.hard.durable_batches,
        )

    def _answered(self, upto: int) -> None:
        self._told = upto
        self._answer_at = self._shared.now + self._answer_pause

    def _confirmed_probe(self) -> int:
        """Only a voter confirms reads."""
        return self.probe if self._shared.may_vote() else 0

    def durable_upto(self, ballot: Ballot) -> int:
        """Every slot up to it is durably known chosen, or durably accepted in `ballot`."""
        if ballot != self._durable_ballot:
            return self._durable_chosen
        held = self._durable_held
        if not self._shared.may_vote():
            # A learner speaks only of what is chosen, whether or not the hint is flushed.
            held = min(held, self._shared.log.chosen)
        return max(held, self._durable_chosen)

    # -- durability

    def acknowledge(self) -> None:
        """Queue this turn's one acknowledgement; the hard state row is in the batch."""
        shared = self._shared
        if self._ack_ordinal < 0:
            return
        upto = self.held if shared.configuration.is_voter(shared.me) else shared.log.chosen
        self._answered(upto)
        shared.out.send_after_flush(
            self._ack_ordinal,
            Accepted(
                self.ballot,
                upto,
                shared.log.chosen,
                self._confirmed_probe(),
                shared.hard.batches,
            ),
        )
        self._ack_ordinal = -1

    def forget_acknowledgement(self) -> None:
        """The leader that waited for it is not followed any more."""
        self._ack_ordinal = -1

    def mark(self) -> None:
        """Note what the batch in the making holds."""
        chosen = self._shared.log.chosen
        marks = self._marks
        if marks:
            _, ballot, held, marked = marks[-1]
            if held == self.held and marked == chosen and ballot == self.ballot:
                return
        elif (
            self._durable_held == self.held
            and self._durable_chosen == chosen
            and self._durable_ballot == self.ballot
        ):
            return
        marks.append((self._shared.out.number, self.ballot, self.held, chosen))

    def persisted(self, number: int) -> None:
        """Batches up to `number` are durable."""
        marks = self._marks
        while marks and marks[0][0] <= number:
            _, self._durable_ballot, self._durable_held, self._durable_chosen = marks.popleft()
