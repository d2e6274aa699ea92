"""A leader's tenure: what it may propose now, and when a slot is chosen.

In order: phase 1 complete for the newest applied configuration, everything some promiser
knows to be chosen learned and applied, the recovered slots proposed again, the barrier, then
new commands, pipelined. A configuration entry stalls all of it until it is applied
(protocol section 5), because the slots above it have other quorums.
"""

from __future__ import annotations

from distkv.core import entries
from distkv.core.acceptor import Acceptor
from distkv.core.messages import Accepted, Learn, Prepare, Promise, Transfer
from distkv.core.peers import Peers
from distkv.core.phase_one import PhaseOne
from distkv.core.progress import Progress
from distkv.core.proposals import Proposals
from distkv.core.reads import LeaderReads
from distkv.core.shared import Shared
from distkv.ids import Member

_WHATEVER_COMES = 1 << 62


class Leader:
    """Exists from the moment q1 voters promised until the ballot is given up."""

    __slots__ = (
        "_acceptor",
        "_blocked_since",
        "_change",
        "_checking",
        "_chosen_seen",
        "_hold",
        "_hurried",
        "_prepare_sent",
        "_shared",
        "_stall",
        "_stamp",
        "_transfer",
        "_transfer_sent",
        "_transfer_until",
        "ballot",
        "barrier",
        "next_slot",
        "peers",
        "phase",
        "proposals",
        "reads",
        "window_bytes",
    )

    def __init__(
        self, shared: Shared, acceptor: Acceptor, phase: PhaseOne, learners: list[Member]
    ) -> None:
        self._shared = shared
        self._acceptor = acceptor
        self.phase = phase
        self.ballot = phase.ballot
        self.next_slot = shared.log.chosen + 1
        self.barrier = 0
        """Slot of the own barrier, or of later ones that other leaders left; 0 until proposed."""
        self.window_bytes = 0
        self.proposals = Proposals(shared.options)
        self.reads = LeaderReads(shared)
        self.peers = Peers(shared, phase.ballot, learners)
        self._change: bytes | None = None
        self._stall = 0
        self._hold = 0
        self._checking = True
        self._blocked_since = shared.now
        self._prepare_sent = shared.now
        self._stamp = 0
        self._transfer: Member | None = None
        self._transfer_until = 0
        self._transfer_sent = False
        self._chosen_seen = shared.log.chosen
        self._hurried: list[Progress] = []
        acceptor.adopt(phase.ballot)
        for member, chosen in phase.promised.items():
            self.peers.on_promise(member, chosen)

    # -- what the owner asks

    @property
    def settled(self) -> bool:
        """The own barrier is applied: state and chosen prefix contain all that went before."""
        return 0 < self.barrier <= self._shared.machine.applied

    @property
    def serves_reads(self) -> bool:
        """Not from when a change is chosen until its voters promised this ballot: a leader of a
        lower one that heard of the change may have chosen more with them."""
        told = 0 < self._stall <= self._shared.log.chosen
        return self.settled and not self._checking and not told

    @property
    def changing(self) -> bool:
        """A change of configuration is on its way or not yet safe to build upon."""
        return self._change is not None or self._stall > 0 or self._checking

    def propose_configuration(self, body: bytes) -> bool:
        """False: another change is on its way, or the leader is not settled."""
        if not self.settled or self.changing or self._transfer is not None:
            return False
        self._change = body
        return True

    def transfer(self, target: Member) -> bool:
        """Finish what is in flight, then ask `target` to take over."""
        known = self._shared.configuration.is_voter(target) and target != self._shared.me
        if not known or not self.settled or self.changing:
            return False
        self._transfer = target
        self._transfer_sent = False
        options = self._shared.options
        self._transfer_until = self._shared.now + options.ticks(options.election_max)
        return True

    def hurry(self, ordinal: int) -> None:
        """That peer waits for the outcome of what is queued now: tell it without delay."""
        for peer in self.peers.all.values():
            if peer.member.ordinal == ordinal:
                peer.hurry = _WHATEVER_COMES
                peer.asks = True
                self._hurried.append(peer)

    def read(self, sender: Member, token: int) -> None:
        """A peer's read; to serve it, it needs everything that is chosen now."""
        self.reads.add(sender.ordinal, token)
        peer = self.peers.all.get(sender)
        if peer is not None:
            peer.hurry = max(peer.hurry, self._shared.log.chosen)

    @property
    def has_work(self) -> bool:
        """Whether `pump` or a round of reads may have something to do."""
        return bool(self.proposals) or self.reads.waiting or self._change is not None

    @property
    def accepts_proposals(self) -> bool:
        """Not while handing over."""
        return self._transfer is None

    # -- proposing

    def pump(self) -> None:
        """Propose all that may be proposed now."""
        log = self._shared.log
        if not self._may_propose():
            return
        if log.chosen >= self.next_slot:
            self.next_slot = log.chosen + 1
        if self.next_slot <= self.phase.last and not self._propose_recovered():
            return
        if not self.barrier:
            self.barrier = self.next_slot
            self._propose(entries.barrier(self._next_stamp(), self.ballot))
        if self._change is not None:
            self._propose_change()
            return
        while self.proposals and self._room():
            self._propose(entries.batch(self._next_stamp(), self.proposals.take()))
        if self._hurried and not self.proposals:
            for peer in self._hurried:
                peer.hurry = self.next_slot - 1
            self._hurried.clear()
        if self._transfer is not None and not self._transfer_sent:
            self._hand_over(self._transfer)

    def _may_propose(self) -> bool:
        applied = self._shared.machine.applied
        if self._stall:
            if applied < self._stall:
                return False
            self._hold, self._stall = self._stall, 0
            self._checking = True
            self._blocked_since = self._shared.now
            self._ask_missing()
        if not self._checking:
            return True
        configuration = self._shared.configuration
        log = self._shared.log
        if not self.phase.complete(configuration):
            return False
        if log.chosen < self.phase.target or applied < log.chosen:
            return False
        if self._hold and self.peers.agreed(self._own_match()) < self._hold:
            # The new quorums begin with every slot up to the change on f + 1 of the new
            # members: before that, losing f disks could lose what the old quorums chose.
            return False
        self._hold = 0
        self._checking = False
        if self.barrier:  # what the new voters had chosen before comes first, for reads too
            self.barrier = max(self.barrier, self.phase.last)
        return True

    def _propose_recovered(self) -> bool:
        """False if it has to stop half-way: no room, or a configuration entry."""
        recovered = self.phase.recovered
        while self.next_slot <= self.phase.last:
            if not self._room():
                return False
            found = recovered.pop(self.next_slot, None)
            if found is None:
                self._propose(entries.noop(self._next_stamp()))
                continue
            entry = found[1]
            if entries.is_configuration(entry) and not self._all_applied():
                recovered[self.next_slot] = found
                return False
            self._stamp = max(self._stamp, entries.stamp_of(entry))
            self._propose(entry)
            if entries.is_configuration(entry):
                self._stall = self.next_slot - 1
                return False
        return True

    def _all_applied(self) -> bool:
        """Every slot below the next is applied: its configuration is the one we count by."""
        return self._shared.machine.applied == self.next_slot - 1

    def _propose_change(self) -> None:
        if self._change is not None and self._all_applied():
            entry = entries.configuration(self._next_stamp(), self._change)
            self._change = None
            self._propose(entry)
            self._stall = self.next_slot - 1

    def _room(self) -> bool:
        options = self._shared.options
        return (
            self.next_slot - 1 - self._shared.log.chosen < options.window_slots
            and self.window_bytes < options.window_bytes
        )

    def _next_stamp(self) -> int:
        shared = self._shared
        self._stamp = max(shared.wall, shared.machine.log_time_ms, self._stamp)
        return self._stamp

    def _propose(self, entry: bytes) -> None:
        slot = self.next_slot
        self._shared.log.put(slot, self.ballot, entry)
        self._shared.out.must_flush = True
        self._shared.rounds += 1
        self._acceptor.held = slot
        self.next_slot = slot + 1
        self.window_bytes += len(entry)

    def _hand_over(self, target: Member) -> None:
        last = self.next_slot - 1
        if not self.proposals and self._all_applied() and self.peers.match_of(target) >= last:
            self._shared.out.send(target.ordinal, Transfer(self.ballot))
            self._transfer_sent = True

    def send(self) -> None:
        """Whatever is due to the peers now."""
        peers = self.peers
        # While anything but new commands is under way, nobody is left behind.
        peers.thrifty = self.settled and not self.changing and self._transfer is None
        peers.send(self.next_slot, self.reads.probe)

    # -- answers

    def on_promise(self, sender: Member, message: Promise) -> None:
        """Only an answer that is still needed changes what will be proposed."""
        if message.ballot != self.ballot or not self._shared.peers.trusted(sender):
            return
        self.peers.on_promise(sender, message.chosen)
        if not self.phase.complete(self._shared.configuration):
            self.phase.add(sender, message.chosen, message.entries, self.next_slot)

    def on_accepted(self, sender: Member, message: Accepted) -> None:
        """Count it, unless it is another ballot's, or its sender lost durable state."""
        if message.ballot != self.ballot:
            return
        if not self._shared.peers.counts(sender, message.durable):
            return
        # A peer may know more than we do; what we have not proposed is not ours to count.
        upto = min(message.upto, self.next_slot - 1)
        if upto < message.upto > message.chosen or message.probe > self.reads.probe:
            self._doubt(sender, message)
        advanced, confirmed = self.peers.on_accepted(sender, message, upto)
        if advanced and upto > self._shared.log.chosen:
            self.choose()
        if confirmed and self.reads.open:
            self.confirm_reads()

    def _doubt(self, sender: Member, message: Accepted) -> None:
        """It claims to hold in our ballot, beyond what is chosen, what we never proposed; or
        to confirm a probe that we never sent."""
        detail = f"slot {message.upto} of {self.next_slot - 1}, probe {message.probe}"
        self._shared.witness.suspect(sender, "impossible_ack", detail)

    def start_reads(self) -> None:
        """Open a round for all that wait; alone it is confirmed already."""
        started = self.reads.start(self.serves_reads)
        if started and self._shared.configuration.phase_two == 1:
            self.confirm_reads()

    def confirm_reads(self) -> None:
        """q2 voters, ourselves among them, have confirmed the ballot up to some probe."""
        if self.serves_reads:
            self.reads.confirmed(self.peers.confirmed(self.reads.probe))

    def _own_match(self) -> int:
        """The own vote counts once it is durable."""
        return self._acceptor.durable_upto(self.ballot)

    def choose(self) -> None:
        """A slot is chosen once q2 voters of its configuration hold it durably in this ballot.

        All slots in flight have the newest applied configuration: see `_stall`.
        """
        log = self._shared.log
        agreed = min(self.peers.agreed(self._own_match()), self.next_slot - 1)
        if agreed > log.chosen:
            chosen, log.chosen = log.chosen, agreed
            self.chosen_moved(chosen)

    def chosen_moved(self, before: int) -> None:
        """Give back the window of slots above `before`."""
        log = self._shared.log
        for slot in range(before + 1, min(log.chosen, self.next_slot - 1) + 1):
            self.window_bytes -= len(log.entries[slot][1])
        if log.chosen >= self.next_slot:
            self.next_slot = log.chosen + 1

    @property
    def unfinished(self) -> bool:
        """Own proposals of which is not known yet whether they were chosen."""
        return self.next_slot - 1 > self._shared.log.chosen

    def contradicted_by(self, message: Learn) -> bool:
        """Whether another value was chosen in a slot for which we proposed one.

        A higher ballot won, and we did not hear of it. Had we gone on, our next accept would
        have named that slot as chosen, and whoever accepted our value in our ballot would have
        applied it (core world 3209207).
        """
        log, first = self._shared.log, message.first
        end = min(first + len(message.entries), self.next_slot)
        slots = range(max(first, log.chosen + 1), end)
        return any(log.entries[slot][1] != message.entries[slot - first] for slot in slots)

    # -- time

    def on_configuration(self) -> None:
        """Members changed: new quorums from here on, whoever proposed it. A deposed leader may
        learn of a change, too, and must not go on before its voters promised."""
        self.peers.rebuild()
        self.reads.renew()
        self._checking = True

    def tick(self, held: bool) -> bool:
        """False if the tenure must end: q1 voters not heard, or no way to go on. `held`: nothing
        is applied for now, so that a barrier that is not would keep everybody's reads waiting."""
        shared = self._shared
        if not self.peers.quorum_heard() or (held and not self.settled):
            return False
        if self._checking or self._stall:
            wait = shared.options.ticks(shared.options.recovery_timeout)
            if shared.now - self._blocked_since >= wait:
                return False
            if shared.now - self._prepare_sent >= shared.options.ticks(shared.options.retry):
                self._ask_missing()
        else:
            self._blocked_since = shared.now
        if shared.log.chosen != self._chosen_seen:
            self._chosen_seen, self._blocked_since = shared.log.chosen, shared.now
        if self._transfer is not None and shared.now >= self._transfer_until:
            self._transfer = None
        self.peers.tick(self.next_slot, self._own_match(), self.reads.open_since)
        self.reads.tick()
        return True

    def next_tick(self) -> int:
        """When `tick` has something to do; it may be too early."""
        shared = self._shared
        if self.changing or self._transfer is not None:
            return shared.now + 1
        return self.peers.next_tick(self.next_slot, self.reads.open_since)

    def _ask_missing(self) -> None:
        """The ballot is durable since the election, so this may leave at once."""
        shared = self._shared
        self._prepare_sent = shared.now
        if self.phase.complete(shared.configuration):
            return
        for member in self.phase.missing(shared.configuration):
            if member != shared.me:
                shared.out.send(member.ordinal, Prepare(self.ballot, shared.log.chosen))
