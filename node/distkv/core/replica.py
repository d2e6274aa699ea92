"""One node's part in Multi-Paxos: messages, ticks and proposals in, `Ready` out.

Protocol: Lamport, "Paxos Made Simple" (2001), section 3, with the quorums of Flexible Paxos
(Howard, Malkhi, Spiegelman 2016). The rules, and where each one lives:

| rule                                              | module        |
|---------------------------------------------------|---------------|
| when to stand, pre-vote                           | election      |
| asking for promises                               | candidacy     |
| promises, accepted entries, what is durable       | acceptor      |
| which values a new leader must propose again      | phase_one     |
| order of proposing, choosing, stalls at a change  | leader        |
| what each peer holds and is sent                  | peers, progress |
| linearizable reads                                | reads         |
| learning what was missed                          | catchup       |
| rows on disk                                      | log, hardstate |

This module only changes roles and passes things on.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from distkv.core import entries
from distkv.core.acceptor import Acceptor
from distkv.core.candidacy import Candidacy
from distkv.core.catchup import CatchUp
from distkv.core.election import Election, Role
from distkv.core.leader import Leader
from distkv.core.mending import rewrite
from distkv.core.messages import (
    Accept,
    Accepted,
    Learn,
    LearnRequest,
    Message,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    ReadReply,
    ReadRequest,
    Refuse,
    Transfer,
)
from distkv.core.options import ReplicaOptions, check
from distkv.core.reads import AskedReads
from distkv.core.ready import Ready
from distkv.core.shared import Shared
from distkv.core.status import Status, picture
from distkv.ids import Ballot, Member
from distkv.machine.interface import StateMachine
from distkv.storage.base import Engine


class Replica:
    """Facade of the core. Not thread-safe. After every call, `ready` until it returns None."""

    def __init__(
        self,
        me: Member,
        machine: StateMachine,
        engine: Engine,
        options: ReplicaOptions,
        rng: random.Random,
    ) -> None:
        """Restore from the rows of `engine` (none: a fresh node). `machine` is loaded already.
        Raises ValueError (contradictory options, unknown row format), StorageError (damage)."""
        check(options)
        self.options = options
        self.machine = machine
        self.elections = 0
        self.held = False  # True: nothing is applied, the machine's state is to be replaced
        self._shared = shared = Shared(me, machine, options, rng)
        self.witness = shared.witness
        self.rewrite = partial(rewrite, shared)
        self.hard = shared.hard
        hint = self.hard.load(engine)
        self.records = shared.peers
        self.records.load(engine)
        self.flushes = self.hard.batches  # with which this process started
        shared.log.load(engine, max(hint, machine.applied), machine.applied)
        self._log = shared.log
        self._out = shared.out
        self._catchup = CatchUp(shared)
        self._acceptor = Acceptor(shared, self._catchup.behind)
        self._acceptor.adopt_restored()
        self._election = Election(shared)
        self._asked = AskedReads(shared)
        self._role = Role.FOLLOWER
        self._leader_member: Member | None = None
        self._leader: Leader | None = None
        self._candidacy: Candidacy | None = None
        self._learners: list[Member] = []
        self._flushes: deque[tuple[int, int]] = deque()
        self._voter = shared.configuration.is_voter(me)
        # What was read may sit in the page cache only: nothing counts before one flush.
        self._out.must_flush = True
        self._handlers: dict[type, Callable[[Member, Any], None]] = {
            Accept: self._on_accept,
            Accepted: self._on_accepted,
            ReadRequest: self._on_read_request,
            ReadReply: self._asked.on_reply,
            Prepare: self._on_prepare,
            Promise: self._on_promise,
            Refuse: self._on_refuse,
            PreVote: self._on_pre_vote,
            PreVoteReply: self._on_pre_vote_reply,
            Learn: self._on_learn,
            LearnRequest: self._catchup.on_request,
            Transfer: self._on_transfer,
        }

    # -- what the owner may ask

    @property
    def me(self) -> Member:
        """Own seat and incarnation."""
        return self._shared.me

    @property
    def role(self) -> str:
        """follower, pre-candidate, candidate, leader; learner if this node has no vote."""
        if self._role is Role.FOLLOWER and not self._shared.may_vote():
            return "learner"
        return self._role.value

    @property
    def ballot(self) -> Ballot:
        """Highest promised ballot."""
        return self._shared.hard.promised

    @property
    def leader(self) -> Member | None:
        """Whom to forward to, as far as this node knows."""
        return self._leader_member

    @property
    def is_leader(self) -> bool:
        """Elected, and the own barrier is applied."""
        return self._leader is not None and self._leader.settled

    @property
    def chosen(self) -> int:
        """All slots up to it are chosen and known here."""
        return self._log.chosen

    @property
    def has_work(self) -> bool:
        """Whether `ready` may have something to say, ticks apart."""
        return (
            (not self.held and self._log.chosen > self.machine.applied)
            or not self._out.empty
            or (self._leader is not None and self._leader.has_work)
        )

    @property
    def first(self) -> int:
        """Lowest slot still in the log."""
        return self._log.first

    @property
    def may_vote(self) -> bool:
        """Whether this incarnation holds its seat and durably has all that admitted it."""
        return self._shared.may_vote()

    @property
    def needs_snapshot(self) -> int | None:
        """Ordinal of a peer to take a snapshot from: the log no longer reaches back to us."""
        return self._catchup.needs_snapshot

    def status(self) -> Status:
        """For people and metrics."""
        return picture(self._shared, self._leader, self, self._acceptor)

    def propose(self, commands: Sequence[bytes]) -> bool:
        """Queue commands for the next batch. False: not the leader, or the queue is full.

        True promises nothing yet: a leader that loses its office drops what it had queued.
        """
        leader = self._leader
        return leader is not None and leader.accepts_proposals and leader.proposals.add(commands)

    def propose_configuration(self, body: bytes) -> bool:
        """Change members or layout, one change at a time. False: not now, or not the leader."""
        return self._leader is not None and self._leader.propose_configuration(body)

    def read(self, token: int) -> None:
        """Ask for a read index; the answer comes in `Ready.reads`, -1 within about
        `read_timeout` if there is none. Tokens must not repeat."""
        if self._leader is not None:
            self._leader.reads.add(-1, token)
        elif self._leader_member is not None:
            self._asked.ask(self._leader_member.ordinal, token)
        else:
            self._out.reads.append((token, -1))

    def hurry(self, ordinal: int) -> None:
        """That peer forwarded commands queued now: tell it their outcome without delay."""
        if self._leader is not None:
            self._leader.hurry(ordinal)

    def transfer(self, ordinal: int) -> bool:
        """Hand leadership over to the voter at `ordinal`. False: not possible now."""
        members = self._shared.configuration.members
        if self._leader is None or not 0 <= ordinal < len(members):
            return False
        return self._leader.transfer(members[ordinal])

    def add_learner(self, member: Member) -> bool:
        """Send accepts to a process that is not a voter; it never counts. False: too many."""
        if member in self._learners:
            return True
        if len(self._learners) >= self.options.learners:
            return False
        self._learners.append(member)
        if self._leader is not None:
            self._leader.peers.rebuild()
        return True

    def remove_learner(self, member: Member) -> None:
        """Stop sending to it."""
        if member in self._learners:
            self._learners.remove(member)
            if self._leader is not None:
                self._leader.peers.rebuild()

    def truncate(self, upto: int) -> None:
        """Drop log rows up to `upto`, which must be applied, but for the retained tail."""
        assert upto <= self.machine.applied, "a snapshot holds only what is applied"
        self._log.truncate(upto, self.options.retain_slots, self.options.retain_bytes)

    def install(self, slot: int) -> None:
        """The machine was replaced by a snapshot of the state after `slot`; its rows go into
        the batch of the next `ready`."""
        assert self.machine.applied == slot
        if slot > self._log.chosen:
            if self._leader is not None and self._leader.unfinished:
                self._resign()  # what we proposed in these slots may not be what was chosen
            self._log.install(slot)
            self._acceptor.chosen_moved()
            self._out.must_flush = True
        self._catchup.needs_snapshot = None
        self._configuration_changed()

    def peer_down(self, ordinal: int) -> None:
        """The transport lost that peer (a hint)."""
        leader = self._leader_member
        if self._leader is not None:
            self._leader.peers.lost_at(ordinal)
        elif leader is not None and leader.ordinal == ordinal:
            self._set_leader(None)
            self._election.leader_lost()

    def peer_up(self, member: Member) -> None:
        """A connection began; whoever is there now does not count before `records.greets`."""
        self.records.connected(member)
        self._catchup.met(member.ordinal)
        self._acceptor.answer_next()
        if self._leader is not None:
            self._leader.peers.lost_at(member.ordinal)

    # -- inputs

    def step(self, sender: Member, message: Message) -> None:
        """A message from `sender`, whose identity the transport has proven."""
        self._handlers[type(message)](sender, message)

    def tick(self, wall_ms: int, ticks: int = 1) -> None:
        """`ticks` times `options.tick` ms have passed; `wall_ms` is the clock (it may jump)."""
        shared = self._shared
        shared.now += ticks
        shared.wall = wall_ms
        if self._leader is not None:
            if not self._leader.tick(self.held):
                self._resign()
        elif shared.may_vote():
            self._tick_follower()
        self._catchup.tick(self._leader is not None or self._election.hears_leader())
        self._asked.tick()
        shared.peers.tick(shared.now)

    def ticks_to_wait(self) -> int:
        """After so many ticks, at least one, `tick` may have something to do; or earlier."""
        shared = self._shared
        due = shared.now + self.options.ticks(self.options.look_again)
        if self._leader is not None:
            due = self._leader.next_tick()
        elif shared.may_vote():
            due = min(due, self._election.deadline)
        return max(1, due - shared.now)

    def persisted(self, number: int) -> None:
        """Everything up to the Ready of this number is durable."""
        shared = self._shared
        shared.durable = max(shared.durable, number)
        self._acceptor.persisted(number)
        while self._flushes and self._flushes[0][0] <= number:
            shared.hard.durable_batches = self._flushes.popleft()[1]
        if self._leader is not None:
            self._leader.choose()
        elif self._candidacy is not None:
            self._candidacy.persisted(number)
            self._lead_if_elected(self._candidacy)

    def ready(self) -> Ready | None:
        """Apply what is chosen (a bounded number of slots) and say what to do.

        None: nothing to do, and every chosen slot is applied.
        """
        applied = not self.held and self._log.chosen > self.machine.applied and self._apply()
        leader, out = self._leader, self._out
        if leader is not None:
            leader.pump()
            leader.start_reads()
            leader.send()
        if out.empty and not applied:
            return None
        if out.must_flush:
            self._shared.hard.write(self._log.chosen)
            self._flushes.append((out.number, self._shared.hard.batches))
            self._acceptor.acknowledge()
        self._acceptor.mark()
        return out.take()

    # -- applying

    def _apply(self) -> bool:
        machine, log = self.machine, self._log
        last = min(log.chosen, machine.applied + self.options.apply_slots)
        for slot in range(machine.applied + 1, last + 1):
            entry = log.entries[slot][1]
            machine.apply(slot, entry)
            if entries.is_configuration(entry):
                self._configuration_changed()
        return True

    def _configuration_changed(self) -> None:
        shared = self._shared
        voter = shared.configuration.is_voter(shared.me)
        if voter and not self._voter:
            shared.admitted = self._out.number
            self._out.must_flush = True
        self._voter = voter
        if self._leader is not None:
            self._leader.on_configuration()
            if not voter:
                self._leader.peers.announce(self._leader.reads.probe)
                self._resign()
        elif not voter:
            self._abandon_candidacy()
        led_by = self._leader_member
        if led_by is not None and not shared.configuration.is_voter(led_by):
            self._set_leader(None)

    # -- roles

    def _set_leader(self, leader: Member | None) -> None:
        if leader != self._leader_member:
            self._leader_member = leader
            self._asked.fail_all()

    def _abandon_candidacy(self) -> None:
        self._candidacy = None
        if self._role is not Role.LEADER:
            self._role = Role.FOLLOWER

    def _resign(self) -> None:
        """Back to follower, leading nobody; what was queued is dropped."""
        if self._leader is not None:
            self._leader.reads.close()
            self._leader = None
            self._set_leader(None)
        self._candidacy = None
        self._role = Role.FOLLOWER
        self._election.restart_timer()

    def _tick_follower(self) -> None:
        if self._shared.now >= self._election.deadline:
            self._candidacy = None
            self._set_leader(None)
            if self.held:  # who applies nothing is not to lead
                self._resign()
                return
            self._role = Role.PRE_CANDIDATE
            if self._election.begin():
                self._campaign()
        elif self._candidacy is not None:
            self._candidacy.tick()

    def _campaign(self) -> None:
        self.elections += 1
        self._acceptor.forget_acknowledgement()
        self._set_leader(None)
        self._role = Role.CANDIDATE
        self._candidacy = Candidacy(self._shared, self._election.next_ballot())
        self._election.restart_timer()

    def _lead_if_elected(self, candidacy: Candidacy) -> None:
        if not candidacy.elected:
            return
        self._candidacy = None
        self._role = Role.LEADER
        self._leader = Leader(self._shared, self._acceptor, candidacy.phase, self._learners)
        self._set_leader(self.me)
        self._catchup.learn_for(candidacy.phase)

    # -- messages

    def _from_voter(self, sender: Member, ballot: Ballot, chosen: int) -> bool:
        """Whether a message of the ballot's owner may be acted upon. A sender that is no voter
        here, yet knows more, may have been admitted by an entry that we lack: learn first.
        """
        if ballot.ordinal != sender.ordinal or ballot.incarnation != sender.incarnation:
            self.witness.uses(sender, ballot)
            return False
        if self._shared.configuration.is_voter(sender):
            return True
        self._catchup.behind(chosen, sender.ordinal)
        return False

    def _on_accept(self, sender: Member, message: Accept) -> None:
        if not self._from_voter(sender, message.ballot, message.chosen):
            return
        if not self._acceptor.on_accept(sender, message):
            return
        if self._role is not Role.FOLLOWER:
            self._resign()
        self._set_leader(sender)
        self._election.hear()

    def _on_accepted(self, sender: Member, message: Accepted) -> None:
        if self._leader is not None:
            self._leader.on_accepted(sender, message)

    def _on_prepare(self, sender: Member, message: Prepare) -> None:
        known = self._from_voter(sender, message.ballot, message.chosen)
        if not known or not self._shared.may_vote():
            return
        self._catchup.behind(message.chosen, sender.ordinal)
        news = message.ballot > self._shared.hard.promised
        if self._acceptor.on_prepare(sender, message) and news:
            self._resign()
            self._set_leader(None)
            self._acceptor.forget_acknowledgement()
            self._election.hear()

    def _on_promise(self, sender: Member, message: Promise) -> None:
        if self._leader is not None:
            self._leader.on_promise(sender, message)
            self._catchup.learn_for(self._leader.phase)
            return
        if self._candidacy is not None:
            self._candidacy.on_promise(sender, message)
            self._lead_if_elected(self._candidacy)

    def _on_refuse(self, sender: Member, message: Refuse) -> None:
        # A learner that promised more can never be fed, or admitted, under a lower ballot.
        if not self._shared.configuration.is_voter(sender) and sender not in self._learners:
            return
        self._election.note_ballot(message.promised)
        contender = self._leader or self._candidacy
        if contender is not None and message.promised > contender.ballot:
            self._resign()

    def _on_pre_vote(self, sender: Member, message: PreVote) -> None:
        # Who asks may be a member by an entry that we lack, and nobody else may be left to tell.
        self._catchup.behind(message.chosen, sender.ordinal)
        self._election.on_pre_vote(sender, message, self._leader is not None)

    def _on_pre_vote_reply(self, sender: Member, message: PreVoteReply) -> None:
        self._catchup.behind(message.chosen, sender.ordinal)
        if self._role is Role.PRE_CANDIDATE and self._election.on_reply(sender, message):
            self._campaign()

    def _on_learn(self, sender: Member, message: Learn) -> None:
        before = self._log.chosen
        if self._leader is not None and self._leader.contradicted_by(message):
            self._resign()
        if self._catchup.on_learn(sender, message):
            self._acceptor.chosen_moved()
            if self._leader is not None:
                self._leader.chosen_moved(before)

    def _on_read_request(self, sender: Member, message: ReadRequest) -> None:
        if self._leader is not None:
            self._leader.read(sender, message.token)
        else:
            self._out.send(sender.ordinal, ReadReply(message.token, -1))

    def _on_transfer(self, sender: Member, message: Transfer) -> None:
        follows = sender == self._leader_member and message.ballot == self._acceptor.ballot
        if follows and self._leader is None and self._shared.may_vote() and not self.held:
            self._campaign()
