"""What the clients wrote down, read back as operations for the checker and the report."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from distkv.simulation.history import ANY, INFINITY, Call, Effect

WRITES = ("put", "cas", "delete", "increment")
LOSSES = ("DATALOST", "data_lost", "CORRUPT", "corrupt", "WRONG VALUE", "error")


class Operation(NamedTuple):
    """One request; times in seconds since the epoch, of one clock."""

    client: int
    door: str
    """The ordinal of a node, or g."""
    key: str
    kind: str
    invoked: float
    returned: float
    error: str
    certain: bool
    """With an error: whether surely nothing was changed."""
    size: int
    entry: dict[str, Any]

    @property
    def acknowledged(self) -> bool:
        """A write that the client was told has happened."""
        return self.kind in WRITES and not self.error


@dataclass
class Record:
    """One run's operations, by the time at which they were asked."""

    operations: list[Operation] = field(default_factory=list)
    final_keys: int | None = None
    """How many keys were read at the end; None: there was no final reading."""
    final_failed: int = 0

    @property
    def losses(self) -> list[str]:
        """Answers that no fault excuses."""
        return [
            f"{op.kind} {op.key} at {op.door}: {op.error} {op.entry.get('why', '')}".strip()
            for op in self.operations
            if op.error in LOSSES
        ]

    def calls(self) -> list[Call]:
        """For the checker: without reads that failed, and without what surely never happened."""
        found = []
        for op in self.operations:
            if op.error and (op.certain or op.kind == "get"):
                continue
            returned = INFINITY if op.error else op.returned
            effect = _effect(op)
            found.append(Call(str(op.client), op.key.encode(), op.invoked, returned, effect))
        return found


def _effect(op: Operation) -> Effect:
    entry = op.entry
    value = entry.get("v")
    if op.kind == "cas":
        return Effect("put", value, expected=entry.get("w"), met=bool(entry.get("met", True)))
    if op.kind == "put":
        return Effect("put", value, existed=entry.get("x"))
    if op.kind == "delete":
        return Effect("delete", existed=entry.get("x"))
    return Effect(op.kind, value, expected=ANY)


def read(lines: Iterable[str]) -> Record:
    """Raises ValueError if the lines are not what the clients write."""
    found = Record()
    shift = None
    for line in lines:
        entry = json.loads(line)
        if entry["o"] == "clock":
            shift = entry["wall"] - entry["i"]
        elif entry["o"] == "final":
            found.final_keys, found.final_failed = entry["keys"], entry["failed"]
        else:
            if shift is None:
                raise ValueError("the history begins without its clock")
            found.operations.append(_operation(entry, shift))
    found.operations.sort(key=lambda op: op.invoked)
    return found


def _operation(entry: dict[str, Any], shift: float) -> Operation:
    return Operation(
        entry["c"],
        entry["d"],
        entry["k"],
        entry["o"],
        entry["i"] + shift,
        entry["r"] + shift,
        entry.get("e", ""),
        bool(entry.get("sure", False)),
        int(entry.get("s", 0)),
        entry,
    )


def load(path: Path) -> Record:
    """From a file, compressed or not."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt") as lines:
            return read(lines)
    with path.open() as lines:
        return read(lines)
