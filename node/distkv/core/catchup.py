"""Learning chosen entries that the leader's accepts did not bring.

A node asks whoever showed that it knows more; an unanswered question goes to the next peer.
If the needed entries are gone there, only a snapshot helps: `needs_snapshot` names the peer.
"""

from __future__ import annotations

from distkv.core.messages import Learn, LearnRequest
from distkv.core.phase_one import PhaseOne
from distkv.core.shared import Shared
from distkv.ids import ZERO_BALLOT, Member


class CatchUp:
    """`target`: highest slot that some peer knows to be chosen."""

    __slots__ = ("_met", "_seen", "_shared", "_since", "_source", "needs_snapshot", "target")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.target = 0
        self.needs_snapshot: int | None = None
        self._source = -1
        self._met: dict[int, None] = {}
        """Ordinals of peers that were reached, or showed to know more; perhaps of no member
        that we know of."""
        self._seen = 0
        self._since = 0

    def behind(self, slot: int, ordinal: int) -> None:
        """That peer knows `slot` as chosen; nothing to do if so do we."""
        shared = self._shared
        if slot <= shared.log.chosen:
            return
        self._met[ordinal] = None
        if slot > self.target:
            if self.target <= shared.log.chosen:
                self._since = shared.now
            self.target = slot
            self._source = ordinal

    def met(self, ordinal: int) -> None:
        """Somebody is there to be asked."""
        self._met[ordinal] = None

    def ask_now(self) -> None:
        """Do not wait whether the leader brings the missing entries."""
        if self.target > self._shared.log.chosen and self.needs_snapshot is None:
            self._ask(self._source)

    def learn_for(self, phase: PhaseOne) -> None:
        """A promise named a longer chosen prefix than ours: no leader will bring it."""
        if phase.target > self._shared.log.chosen:
            self.behind(phase.target, phase.source)
            self.ask_now()

    def _ask(self, ordinal: int) -> None:
        shared = self._shared
        self._since = shared.now
        if 0 <= ordinal != shared.me.ordinal:
            shared.out.send(ordinal, LearnRequest(shared.log.chosen + 1))

    def tick(self, led: bool) -> None:
        """`led`: a leader was heard lately, so being unaware of a gap means there is none."""
        shared = self._shared
        chosen = shared.log.chosen
        if chosen != self._seen:
            self._seen = chosen
            self._since = shared.now
            return
        behind = self.target > chosen
        if not behind and (led or shared.configuration.is_voter(shared.me)):
            return
        wait = shared.options.ticks(shared.options.retry)
        if shared.now - self._since >= (wait if behind else 3 * wait):
            self._ask(self._source)
            self._rotate()

    def _rotate(self) -> None:
        """If the one asked stays silent, another is asked next.

        A newcomer may know the founders alone, of whom none may be left, or none but the one
        whose seat it waits for: whoever was met is asked, too.
        """
        shared = self._shared
        known = {*self._met, *(m.ordinal for m in shared.others())} - {shared.me.ordinal}
        ordinals = sorted(known)
        if ordinals:
            later = [o for o in ordinals if o > self._source]
            self._source = later[0] if later else ordinals[0]

    def on_request(self, sender: Member, message: LearnRequest) -> None:
        """Anybody may learn what is chosen; who asks for what we lack knows all before it."""
        shared = self._shared
        self.behind(message.first - 1, sender.ordinal)
        log = shared.log
        entries: tuple[bytes, ...] = ()
        if log.first <= message.first <= log.chosen:
            entries = log.chosen_entries(message.first, shared.options.message_bytes)
        shared.out.send(sender.ordinal, Learn(message.first, entries, log.first, log.chosen))

    def _compare(self, sender: Member, message: Learn) -> None:
        """An answer that came late says what is known already, or is a lie."""
        log = self._shared.log
        for slot, entry in enumerate(message.entries, message.first):
            known = log.entries.get(slot) if slot <= log.chosen else None
            if known is not None and known[1] != entry:
                detail = f"another entry than the chosen one for slot {slot}"
                self._shared.witness.suspect(sender, "equivocation", detail)

    def on_learn(self, sender: Member, message: Learn) -> bool:
        """True if the chosen prefix grew."""
        shared = self._shared
        log = shared.log
        if message.chosen > log.chosen:
            self.behind(message.chosen, sender.ordinal)
        if not message.entries:
            if message.first == log.chosen + 1 < message.retained:
                self.needs_snapshot = sender.ordinal
            return False
        last = message.first + len(message.entries) - 1
        if message.first > log.chosen + 1 or last <= log.chosen:
            self._compare(sender, message)
            return False
        for slot in range(log.chosen + 1, last + 1):
            log.put(slot, ZERO_BALLOT, message.entries[slot - message.first])
        log.chosen = last
        # The hint that these rows are chosen must be in the same batch.
        shared.out.must_flush = True
        self.needs_snapshot = None
        if message.chosen > last:
            self._ask(sender.ordinal)
        return True
