"""Things only a faulty or hostile peer does: counted, logged once per burst, reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BURST_SECONDS = 60.0
SOURCES_MAX = 256


@dataclass(slots=True)
class Suspicion:
    """Counter of one (source, kind)."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    detail: str = ""


class SuspicionLog:
    """`report(text)` is called for the first of each burst."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.entries: dict[tuple[str, str], Suspicion] = {}

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
        entry.count += 1
        entry.last = now
        entry.detail = detail

    def status(self) -> list[dict[str, object]]:
        """Rows for the status page."""
        return [
            {"source": source, "kind": kind, "count": entry.count, "detail": entry.detail}
            for (source, kind), entry in self.entries.items()
        ]
