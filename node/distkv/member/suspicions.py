"""Things only a faulty or hostile peer does: counted, logged once per burst, reported.

Nothing is decided by them: each was refused or ignored where it was found (and whose disk went
back in time is not heard any more, see core.hardstate). Kinds, and where they are found:

| kind | what was seen |
|---|---|
| bad_tag | a datagram that the key of its connection or greeting does not open (transport) |
| foreign_cluster, foreign_generation | a greeting of another cluster, or of before a recovery |
| unknown_key, replayed_greeting, malformed_greeting, garbage, protocol_version | greetings |
| seat_taken, old_boot, wrong_target, too_many_peers, refused | greetings of known key, refused |
| protocol_error | an authentic packet against the rules of the transport |
| undecodable_message | an authentic message that is none (driver) |
| unknown_message | one with the code of no message: of a newer version, while nodes are upgraded |
| equivocation | two entries for one slot and ballot, two chosen ones, two shards for one value |
| foreign_ballot, ballot_regression | acting under another's ballot, or a lower one than before |
| impossible_ack | acknowledging what was never sent |
| durable_regression | fewer flushes than it told of before: its disk went back in time |
| bad_checksum | a piece of a shard that fails the checksum it came with |
| malformed_piece, foreign_value | a piece of impossible shape, or of somebody else's value |
| impossible_drop | giving up, as never submitted, a value that a record names |
| damaged_files | the own disk: files of the engine are damaged in all copies (scrubbing) |
| other_founders, impossible_founders | lists of founders |
| damaged_snapshot, damaged_row | metadata that were asked for, and are none |

The source is "node N" for what only N can have sent, else the address it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distkv.ids import Member

BURST_SECONDS = 60.0
"""After so long without another one, the next is logged again."""
SOURCES_MAX = 256


@dataclass(slots=True)
class Suspicion:
    """Counter of one (source, kind). `first`, `last`: seconds of the kernel's clock."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    detail: str = ""


class SuspicionLog:
    """`report(text)` is called for the first of each burst."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.entries: dict[tuple[str, str], Suspicion] = {}
        self.total = 0

    def add(self, now: float, source: str, kind: str, detail: str) -> None:
        """Count one event."""
        key = (source, kind)
        if key not in self.entries and len(self.entries) >= SOURCES_MAX:
            key = ("others", kind)
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Suspicion(first=now, last=float("-inf"))
        if now - entry.last > BURST_SECONDS:
            self._report(f"suspicious: {source}: {kind}: {detail}")
        self.total += 1
        entry.count += 1
        entry.last = now
        entry.detail = detail

    def take(self, now: float, *found: list[tuple[Member, str, str]]) -> None:
        """What the core and the data plane saw: (who, kind, detail); the lists are emptied."""
        for doubts in found:
            for peer, kind, detail in doubts:
                self.add(now, f"node {peer.ordinal}", kind, detail)
            doubts.clear()

    def status(self) -> list[dict[str, object]]:
        """Rows for the status page."""
        return [
            {"source": source, "kind": kind, "count": entry.count, "detail": entry.detail}
            for (source, kind), entry in self.entries.items()
        ]
