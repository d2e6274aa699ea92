"""The leader's peers: what they hold, what to send them, who of them was heard.

Who is sent entries at once and who a little later: see `spread`.
"""

from __future__ import annotations

from distkv.core.messages import Accept, Accepted
from distkv.core.progress import Progress
from distkv.core.shared import Shared
from distkv.core.spread import Spread
from distkv.ids import Ballot, Member

_NEVER = 1 << 60


class Peers:
    """Voters (in order of ordinals) and learners of one tenure."""

    __slots__ = (
        "_ballot",
        "_choose_at",
        "_heartbeat",
        "_lazy",
        "_learners",
        "_own",
        "_own_since",
        "_runs",
        "_shared",
        "_spread",
        "all",
        "thrifty",
        "voters",
    )

    def __init__(self, shared: Shared, ballot: Ballot, learners: list[Member]) -> None:
        self._shared = shared
        self._ballot = ballot
        self._learners = learners
        self.all: dict[Member, Progress] = {}
        self.voters: list[Progress] = []
        self.thrifty = False
        """Whether entries may be kept back from voters that no quorum needs."""
        self._spread = Spread(shared.options)
        self._choose_at = 0
        self._lazy = shared.options.ticks(shared.options.lazy)
        self._heartbeat = shared.options.ticks(shared.options.heartbeat)
        self._own = 0
        self._own_since = -1
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
        self._choose()

    def _choose(self) -> None:
        shared = self._shared
        self._choose_at = shared.now + shared.options.ticks(shared.options.choose_again)
        self._spread.choose(self.voters, shared.configuration.phase_two - 1)

    def lost_at(self, ordinal: int) -> None:
        """The connection there broke, or is a new one: others may have to make up the quorum."""
        for peer in self.all.values():
            if peer.member.ordinal == ordinal:
                peer.lost()
                if peer.eager:
                    self._spread.until = self._shared.now
                    self._choose()

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

    # -- time

    def tick(self, next_slot: int, own: int, reads_since: int) -> None:
        """Resend what got no answer; see whether a quorum is late.

        `own`: what this node durably holds; `reads_since`: tick of the oldest read that
        waits for a quorum, -1: none.
        """
        shared = self._shared
        now = shared.now
        for peer in self.all.values():
            peer.resend_if_due(now)
        if own >= next_slot - 1:
            self._own_since = -1
        elif own > self._own or self._own_since < 0:
            self._own_since = now
        self._own = own
        if self.thrifty and self._late(next_slot, own, reads_since):
            self._spread.until = now
            for peer in self.voters:
                peer.delay = max(peer.delay, peer.waited(now))
            self._choose()
        elif now >= self._choose_at:
            self._choose()

    def _late(self, next_slot: int, own: int, reads_since: int) -> bool:
        shared = self._shared
        oldest = shared.now - self._spread.hedge
        if 0 <= reads_since <= oldest:
            return True
        if shared.log.chosen >= next_slot - 1:
            return False
        if own <= shared.log.chosen and 0 <= self._own_since <= oldest:
            return True
        return any(
            not peer.known or peer.waited(shared.now) >= self._spread.hedge
            for peer in self.voters
            if peer.eager and peer.match <= shared.log.chosen
        )

    def next_tick(self, next_slot: int, reads_since: int) -> int:
        """Tick at which `tick` or `send` has something to do; it may be too early."""
        heartbeat, lazy = self._heartbeat, self._lazy
        hedge = self._spread.hedge
        due = self._shared.now + heartbeat
        if reads_since >= 0 and self.thrifty:
            due = min(due, reads_since + hedge)
        for peer in self.all.values():
            if peer.sent + heartbeat < due:
                due = peer.sent + heartbeat
            if 0 <= peer.held_since < due - lazy:
                due = peer.held_since + lazy
            if peer.inflight:
                if peer.progressed + peer.resend < due:
                    due = peer.progressed + peer.resend
                if peer.eager and self.thrifty and peer.inflight[0][2] + hedge < due:
                    due = peer.inflight[0][2] + hedge
        if self._own_since >= 0:
            due = min(due, self._own_since + hedge)
        return due

    # -- sending

    def send(self, next_slot: int, probe: int) -> None:
        """Entries to whoever lacks them; else an empty accept where one is due: heartbeat,
        a chosen prefix somebody waits for, a read to confirm."""
        shared = self._shared
        now = shared.now
        self._runs.clear()
        oldest = now - self._heartbeat
        for peer in self.all.values():
            if peer.sent <= oldest:
                oldest += self._heartbeat // 2  # one wake-up for all whose time is near
                break
        chosen = shared.log.chosen
        all_at_once = not self.thrifty or now <= self._spread.until
        for peer in self.all.values():
            beat = peer.sent <= oldest
            if (
                peer.next < next_slot
                and peer.known
                and peer.next >= shared.log.first
                and peer.inflight_bytes < shared.options.inflight_bytes
            ):
                if all_at_once or peer.eager or beat or self._no_longer(peer, next_slot):
                    self._send_runs(peer, next_slot, probe)
                    continue
                if peer.held_since < 0:
                    peer.held_since, peer.held_upto = now, peer.next - 1
            if (probe > peer.probe_sent and (all_at_once or peer.eager)) or (
                peer.chosen_sent < chosen and peer.chosen_sent < peer.hurry
            ):
                shared.out.send(peer.member.ordinal, self._empty(peer, probe))
            elif beat:
                shared.out.beat(peer.member.ordinal, self._empty(peer, probe))

    def _no_longer(self, peer: Progress, next_slot: int) -> bool:
        """Whether entries may not be kept back from `peer` any more."""
        shared = self._shared
        options = shared.options
        if peer.hurry >= peer.next or next_slot - peer.next > options.lazy_slots:
            return True
        if peer.held_since < 0:
            return False
        if peer.held_since <= shared.now - self._lazy:
            return True
        entries = shared.log.entries
        # What it came to hold by other ways may be truncated by now.
        for slot in range(max(peer.held_upto + 1, peer.next), next_slot):
            peer.held_bytes += len(entries[slot][1])
        peer.held_upto = next_slot - 1
        return peer.held_bytes > options.lazy_bytes

    def _send_runs(self, peer: Progress, next_slot: int, probe: int) -> None:
        limit = self._shared.options.inflight_bytes
        while peer.next < next_slot and peer.inflight_bytes < limit:
            self._send_run(peer, next_slot, probe)

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

    def _empty(self, peer: Progress, probe: int) -> Accept:
        self._sent(peer, probe)
        return Accept(self._ballot, peer.next, (), self._shared.log.chosen, probe)

    def _sent(self, peer: Progress, probe: int) -> None:
        peer.sent = self._shared.now
        peer.chosen_sent = self._shared.log.chosen
        peer.probe_sent = probe

    def announce(self, probe: int) -> None:
        """The chosen prefix to everybody, now: this leader is about to leave."""
        for peer in self.all.values():
            self._shared.out.send(peer.member.ordinal, self._empty(peer, probe))
