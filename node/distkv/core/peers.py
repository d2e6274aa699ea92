"""The leader's peers: what they hold, what to send them, who of them was heard."""

from __future__ import annotations

from distkv.core.messages import Accept, Accepted
from distkv.core.progress import Progress
from distkv.core.shared import Shared
from distkv.ids import Ballot, Member


class Peers:
    """Voters (in order of ordinals) and learners of one tenure."""

    __slots__ = ("_ballot", "_learners", "_runs", "_shared", "all", "voters")

    def __init__(self, shared: Shared, ballot: Ballot, learners: list[Member]) -> None:
        self._shared = shared
        self._ballot = ballot
        self._learners = learners
        self.all: dict[Member, Progress] = {}
        self.voters: list[Progress] = []
        self._runs: dict[int, tuple[tuple[bytes, ...], int, int]] = {}
        self.rebuild()

    def rebuild(self) -> None:
        """After the configuration or the list of learners changed; known progress is kept."""
        shared = self._shared
        options = shared.options
        before = self.all
        self.all = {}
        voters = shared.others()
        for member in voters + [m for m in self._learners if m not in voters]:
            if member == shared.me:
                continue
            self.all[member] = before.get(member) or Progress(
                member,
                shared.now,
                options.ticks(options.resend),
                options.ticks(options.resend_max),
            )
        self.voters = [self.all[m] for m in voters]

    def match_of(self, member: Member) -> int:
        """What the peer durably holds, as far as we know."""
        peer = self.all.get(member)
        return 0 if peer is None else peer.match

    # -- answers

    def on_promise(self, sender: Member, chosen: int) -> None:
        """A promise is durable, and so is the chosen prefix it names."""
        peer = self.all.get(sender)
        if peer is not None:
            peer.heard = self._shared.now
            if not peer.known:
                peer.start(min(chosen, self._shared.log.chosen))

    def on_accepted(self, sender: Member, message: Accepted, upto: int) -> tuple[bool, bool]:
        """(the peer holds more, the peer confirmed a newer probe)."""
        peer = self.all.get(sender)
        if peer is None:
            return False, False
        peer.heard = self._shared.now
        if message.chosen > peer.chosen:
            peer.chosen = message.chosen
        advanced = upto > peer.match
        if advanced:
            peer.advance(upto, self._shared.now)
        if not peer.known:
            peer.start(upto)
        confirmed = message.probe > peer.probe
        if confirmed:
            peer.probe = message.probe
        return advanced, confirmed

    # -- quorums, over the newest applied configuration

    def agreed(self, own: int) -> int:
        """Highest slot that q2 voters hold, of which this node holds `own`."""
        held = [own]
        for peer in self.voters:
            held.append(peer.match)
        held.sort(reverse=True)
        return held[self._shared.configuration.phase_two - 1]

    def confirmed(self, newest: int) -> int:
        """Highest probe that q2 voters confirmed; this node confirms every one."""
        probes = [newest]
        for peer in self.voters:
            probes.append(peer.probe)
        probes.sort(reverse=True)
        return probes[self._shared.configuration.phase_two - 1]

    def quorum_heard(self) -> bool:
        """Whether q1 voters, the leader included, were heard within an election time-out.

        q1, not q2: a leader that reaches q2 only would hold its office and yet be unable to
        change members or to serve what needs n - f nodes, while nobody may replace it.
        """
        options = self._shared.options
        oldest = self._shared.now - options.ticks(options.election_min)
        heard = 1
        for peer in self.voters:
            if peer.heard > oldest:
                heard += 1
        return heard >= self._shared.configuration.phase_one

    # -- sending

    def tick(self) -> None:
        """Resend what got no answer."""
        for peer in self.all.values():
            peer.resend_if_due(self._shared.now)

    def send(self, next_slot: int, probe: int) -> None:
        """Entries to whoever lacks them; else an empty accept where one is due: heartbeat,
        a chosen prefix somebody waits for, a read to confirm."""
        shared = self._shared
        self._runs.clear()
        heartbeat = shared.options.ticks(shared.options.heartbeat)
        chosen = shared.log.chosen
        for peer in self.all.values():
            sent = False
            while (
                peer.next < next_slot
                and peer.known
                and peer.next >= shared.log.first
                and peer.inflight_bytes < shared.options.inflight_bytes
            ):
                self._send_run(peer, next_slot, probe)
                sent = True
            if not sent and (
                shared.now - peer.sent >= heartbeat
                or probe > peer.probe_sent
                or (peer.chosen_sent < chosen and peer.chosen_sent < peer.hurry)
            ):
                self._send_empty(peer, probe)

    def _send_run(self, peer: Progress, next_slot: int, probe: int) -> None:
        log = self._shared.log
        first = peer.next
        found = self._runs.get(first)
        if found is None:
            run = log.run(first, next_slot - 1, self._shared.options.message_bytes)
            found = self._runs[first] = (run, first + len(run) - 1, sum(map(len, run)))
        run, last, size = found
        self._sent(peer, probe)
        self._shared.out.send(
            peer.member.ordinal, Accept(self._ballot, first, run, log.chosen, probe)
        )
        peer.sent_run(last, size, self._shared.now)

    def _send_empty(self, peer: Progress, probe: int) -> None:
        log = self._shared.log
        self._sent(peer, probe)
        self._shared.out.send(
            peer.member.ordinal, Accept(self._ballot, peer.next, (), log.chosen, probe)
        )

    def _sent(self, peer: Progress, probe: int) -> None:
        peer.sent = self._shared.now
        peer.chosen_sent = self._shared.log.chosen
        peer.probe_sent = probe

    def announce(self, probe: int) -> None:
        """The chosen prefix to everybody, now: this leader is about to leave."""
        for peer in self.all.values():
            self._send_empty(peer, probe)
