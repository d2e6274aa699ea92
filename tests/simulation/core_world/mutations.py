"""Known mistakes of a consensus core, each a small patch. The simulator must catch them all.

`MUTATIONS[name](patch)` installs one; `patch(owner, attribute, replacement)` is undone later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distkv.core import peers as peers_module
from distkv.core.acceptor import Acceptor
from distkv.core.configuration import Configuration
from distkv.core.election import Election
from distkv.core.hardstate import HardState, PeerRecords
from distkv.core.leader import Leader
from distkv.core.log import Log
from distkv.core.messages import Accepted, Promise
from distkv.core.outbox import Outbox
from distkv.core.phase_one import PhaseOne
from distkv.core.reads import LeaderReads
from distkv.core.replica import Replica
from distkv.core.shared import Shared
from distkv.ids import ZERO_BALLOT

Patch = Callable[[Any, str, Any], None]
MUTATIONS: dict[str, Callable[[Patch], None]] = {}


def mutation(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTATIONS[function.__name__] = function
    return function


@mutation
def acknowledge_before_persist(patch: Patch) -> None:
    """Promises and acceptances leave at once."""

    def send_after_flush(self: Outbox, ordinal: int, message: Any) -> None:
        self.must_flush = True
        self.messages.append((ordinal, message))

    patch(Outbox, "send_after_flush", send_after_flush)


@mutation
def own_vote_before_persist(patch: Patch) -> None:
    """The leader counts its own entry before it is on its disk."""
    patch(Leader, "_own_match", lambda self: self.next_slot - 1)


@mutation
def phase_two_one_short(patch: Patch) -> None:
    """A slot is chosen with f votes where f + 1 are needed."""

    def agreed(self: peers_module.Peers, own: int) -> int:
        held = sorted([own, *(p.match for p in self.voters)], reverse=True)
        return held[max(0, self._shared.configuration.phase_two - 2)]

    patch(peers_module.Peers, "agreed", agreed)


@mutation
def phase_one_one_short(patch: Patch) -> None:
    """Elected by n - f - 1."""

    def complete(self: PhaseOne, configuration: Configuration) -> bool:
        count = sum(1 for m in configuration.members if m in self.promised)
        return count >= max(1, configuration.phase_one - 1)

    patch(PhaseOne, "complete", complete)


@mutation
def vote_after_amnesia(patch: Patch) -> None:
    """A node votes whatever incarnation holds its seat."""
    patch(
        Configuration,
        "is_voter",
        lambda self, m: 0 <= m.ordinal < len(self.members),
    )
    patch(
        PhaseOne,
        "complete",
        lambda self, c: (
            len({m.ordinal for m in self.promised if m.ordinal < c.size}) >= c.phase_one
        ),
    )


@mutation
def ballot_not_persisted(patch: Patch) -> None:
    """The promise lives in memory only."""
    original = HardState.load

    def load(self: HardState, engine: Any) -> int:
        chosen = original(self, engine)
        self.promised = ZERO_BALLOT
        return chosen

    patch(HardState, "load", load)


@mutation
def read_without_quorum(patch: Patch) -> None:
    """The leader serves reads on its own word."""
    original = LeaderReads.start

    def start(self: LeaderReads, ready: bool) -> bool:
        started = original(self, ready)
        self.confirmed(self.probe)
        return started

    patch(LeaderReads, "start", start)


@mutation
def read_before_own_barrier(patch: Patch) -> None:
    """The read index is taken before the predecessor's slots are known to be in it."""
    original = LeaderReads.start
    patch(LeaderReads, "start", lambda self, ready: original(self, True))


@mutation
def read_confirmed_by_late_answer(patch: Patch) -> None:
    """Any answer in the ballot confirms every round, even one that was asked earlier."""
    original = Leader.on_accepted

    def on_accepted(self: Leader, sender: Any, message: Accepted) -> None:
        original(self, sender, message._replace(probe=self.reads.probe))

    patch(Leader, "on_accepted", on_accepted)


@mutation
def stale_acknowledgement_counted(patch: Patch) -> None:
    """An acknowledgement of another ballot counts.

    Without the count of durable batches too: messages older than others of the same sender
    are dropped by it, which hides most of this mistake.
    """
    original = Leader.on_accepted
    patch(PeerRecords, "counts", lambda self, sender, durable: True)

    def on_accepted(self: Leader, sender: Any, message: Accepted) -> None:
        original(self, sender, message._replace(ballot=self.ballot))

    patch(Leader, "on_accepted", on_accepted)


@mutation
def chosen_from_another_ballot(patch: Patch) -> None:
    """Whatever is in the slot is taken for what the leader says is chosen."""

    def learn_chosen(self: Acceptor, sender: Any, message: Any) -> None:
        log = self._shared.log
        while log.chosen < message.chosen and log.chosen + 1 in log.entries:
            log.chosen += 1
        self._extend()
        if message.chosen > log.chosen:
            self._behind(message.chosen, sender.ordinal)

    patch(Acceptor, "_learn_chosen", learn_chosen)


@mutation
def lowest_ballot_recovered(patch: Patch) -> None:
    """A new leader proposes whatever value it heard of first."""

    def add(self: PhaseOne, member: Any, chosen: int, found: Any, next_slot: int) -> None:
        self.promised[member] = chosen
        if chosen > self.target:
            self.target, self.source = chosen, member.ordinal
        for slot, ballot, entry in found:
            if slot >= next_slot and slot not in self.recovered:
                self.recovered[slot] = (ballot, entry)
                self.last = max(self.last, slot)

    patch(PhaseOne, "add", add)


@mutation
def recovered_slots_ignored(patch: Patch) -> None:
    """A new leader starts with its own values."""
    original = PhaseOne.add
    patch(PhaseOne, "add", lambda self, m, c, found, n: original(self, m, c, (), n))


@mutation
def proposes_before_learning(patch: Patch) -> None:
    """A leader behind some promiser's chosen prefix fills the gap itself."""
    original = PhaseOne.add

    def add(self: PhaseOne, member: Any, chosen: int, found: Any, next_slot: int) -> None:
        original(self, member, chosen, found, next_slot)
        self.target = 0

    patch(PhaseOne, "add", add)


@mutation
def accepts_below_promise(patch: Patch) -> None:
    """An acceptor forgets its promise when an accept arrives."""
    original = Acceptor.on_accept

    def on_accept(self: Acceptor, sender: Any, message: Any) -> bool:
        hard = self._shared.hard
        if message.ballot < hard.promised:
            hard.promised = message.ballot
        return original(self, sender, message)

    patch(Acceptor, "on_accept", on_accept)


@mutation
def promise_hides_entries(patch: Patch) -> None:
    """A promise reports what was chosen, but not what was accepted."""
    original = Outbox.send_after_flush

    def send_after_flush(self: Outbox, ordinal: int, message: Any) -> None:
        if type(message) is Promise:
            message = message._replace(entries=())
        original(self, ordinal, message)

    patch(Outbox, "send_after_flush", send_after_flush)


@mutation
def acknowledges_past_a_hole(patch: Patch) -> None:
    """The highest accepted slot is acknowledged although one below is missing."""

    def extend(self: Acceptor) -> None:
        log = self._shared.log
        self.held = max(
            [log.chosen, self.held]
            + [s for s, b, _ in log.accepted_above(log.chosen) if b == self.ballot]
        )

    patch(Acceptor, "_extend", extend)


@mutation
def no_stall_at_a_change(patch: Patch) -> None:
    """Slots above a change are proposed before it is applied."""
    original = Leader._may_propose

    def may_propose(self: Leader) -> bool:
        self._stall = 0
        return original(self)

    patch(Leader, "_may_propose", may_propose)
    patch(Leader, "_all_applied", lambda self: True)


@mutation
def no_phase_one_after_a_change(patch: Patch) -> None:
    """The promises of the old members are taken for those of the new ones."""
    original = PhaseOne.complete

    def complete(self: PhaseOne, configuration: Configuration) -> bool:
        if original(self, configuration):
            self.ballot = self.ballot  # phase 1 was complete once: never asked again
            _COMPLETE[id(self)] = self
        return id(self) in _COMPLETE

    _COMPLETE.clear()
    patch(PhaseOne, "complete", complete)


_COMPLETE: dict[int, PhaseOne] = {}


@mutation
def joiner_takes_its_gap_for_chosen(patch: Patch) -> None:
    """A learner that has not copied everything acknowledges and votes like a member."""
    patch(Shared, "may_vote", lambda self: True)

    def acknowledge(self: Acceptor) -> None:
        shared = self._shared
        if self._ack_ordinal >= 0:
            shared.out.send_after_flush(
                self._ack_ordinal,
                Accepted(self.ballot, self.held, shared.log.chosen, 0, shared.hard.batches),
            )
            self._ack_ordinal = -1

    patch(Acceptor, "acknowledge", acknowledge)

    def extend(self: Acceptor, original: Any = Acceptor._extend) -> None:
        shared = self._shared
        if shared.log.chosen == 0 and not shared.configuration.is_voter(shared.me):
            self.held = max(shared.log.entries, default=0)
        original(self)

    patch(Acceptor, "_extend", extend)


@mutation
def voters_of_the_old_layout_count(patch: Patch) -> None:
    """A leader goes on with the voters it was elected by."""
    patch(Leader, "on_configuration", lambda self: None)


@mutation
def chosen_hint_without_its_rows(patch: Patch) -> None:
    """Learned entries are not written, only the hint that they are chosen."""

    def put(self: Log, slot: int, ballot: Any, entry: bytes, original: Any = Log.put) -> None:
        if ballot == ZERO_BALLOT:
            self.entries[slot] = (ballot, entry)
            self.last = max(self.last, slot)
        else:
            original(self, slot, ballot, entry)

    patch(Log, "put", put)


@mutation
def no_resend(patch: Patch) -> None:
    """A lost accept is never sent again."""
    patch(peers_module.Peers, "tick", lambda self, next_slot, own, reads_since: None)


@mutation
def read_tokens_forgotten(patch: Patch) -> None:
    """A leader that resigns answers nobody."""
    patch(LeaderReads, "close", lambda self: None)


@mutation
def queue_kept_over_a_tenure(patch: Patch) -> None:
    """A deposed leader proposes its queue again although its entries may still be chosen."""
    original = Replica._resign

    def resign(self: Replica) -> None:
        leader = self._leader
        if leader is not None:
            kept = _KEPT.setdefault(id(self), [])
            kept.extend(c for c in leader.proposals._commands)
            for slot in range(self._log.chosen + 1, leader.next_slot):
                entry = self._log.entries[slot][1]
                if entry[0] == 1:
                    import msgpack

                    kept.extend(msgpack.unpackb(entry[9:]))
        original(self)

    lead = Replica._lead_if_elected

    def lead_if_elected(self: Replica, candidacy: PhaseOne) -> None:
        lead(self, candidacy)
        if self._leader is not None:
            self._leader.proposals.add(_KEPT.pop(id(self), []))

    _KEPT.clear()
    patch(Replica, "_resign", resign)
    patch(Replica, "_lead_if_elected", lead_if_elected)


_KEPT: dict[int, list[bytes]] = {}


@mutation
def no_step_down(patch: Patch) -> None:
    """A leader that hears nobody stays."""
    patch(peers_module.Peers, "quorum_heard", lambda self: True)


@mutation
def step_down_at_phase_two(patch: Patch) -> None:
    """Tenure by q2 instead of q1."""

    def quorum_heard(self: peers_module.Peers) -> bool:
        options = self._shared.options
        oldest = self._shared.now - options.ticks(options.election_min)
        heard = 1 + sum(1 for p in self.voters if p.heard > oldest)
        return heard >= self._shared.configuration.phase_two

    patch(peers_module.Peers, "quorum_heard", quorum_heard)


@mutation
def restored_counts_when_past_its_old_count(patch: Patch) -> None:
    """Not the count with which a process started is judged, but what it has flushed since."""
    patch(PeerRecords, "greets", lambda self, peer, start, flushes: 0)


@mutation
def restored_candidate_is_promised(patch: Patch) -> None:
    """Answers of who went back in time do not count, but its own vote for itself does."""
    original = Acceptor.on_prepare

    def on_prepare(self: Acceptor, sender: Any, message: Any) -> bool:
        records = self._shared.peers
        record = records.records.get(sender)
        if record is None or not record.regressed:
            return original(self, sender, message)
        record.regressed = False
        try:
            return original(self, sender, message)
        finally:
            record.regressed = True

    patch(Acceptor, "on_prepare", on_prepare)
    grant = Election.on_pre_vote

    def on_pre_vote(self: Election, sender: Any, message: Any, leads: bool) -> None:
        record = self._shared.peers.records.get(sender)
        was = record is not None and record.regressed
        if record is not None:
            record.regressed = False
        grant(self, sender, message, leads)
        if record is not None:
            record.regressed = was

    patch(Election, "on_pre_vote", on_pre_vote)


@mutation
def restored_directory_of_an_earlier_member(patch: Patch) -> None:
    """A seat's record is forgotten as soon as another directory sits there."""
    original = PeerRecords._of

    def of(self: PeerRecords, member: Any) -> Any:
        for known in [k for k in self.records if k.ordinal == member.ordinal and k != member]:
            del self.records[known]
        return original(self, member)

    patch(PeerRecords, "_of", of)


@mutation
def contradicted_leader_goes_on(patch: Patch) -> None:
    """It learns that a higher ballot chose other values than its own, and leads on."""
    patch(Leader, "contradicted_by", lambda self, message: False)


@mutation
def contradicted_by_a_snapshot_leader_goes_on(patch: Patch) -> None:
    """A snapshot takes the place of its own proposals, and it leads on."""
    patch(Leader, "unfinished", False)


@mutation
def open_reads_keep_their_index_over_a_change(patch: Patch) -> None:
    """New quorums confirm what was noted before the change was chosen."""
    patch(LeaderReads, "renew", lambda self: None)


@mutation
def late_change_reads_need_no_promises(patch: Patch) -> None:
    """Reads go on before the new voters promised."""
    patch(Leader, "serves_reads", property(lambda self: self.settled))
