"""A state machine for testing the core alone: a hash chain over the log, and configurations."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from distkv.core import entries
from distkv.core.configuration import Configuration
from distkv.ids import ZERO_BALLOT, Ballot, Member
from distkv.machine.interface import Event, Outcome
from distkv.storage.base import Engine, Put, StorageOperation, Table

_KEY = b"chain"


class ChainState(NamedTuple):
    """All of the state: equal chains mean equal logs."""

    applied: int
    chain: int
    log_time_ms: int
    barrier: Ballot
    configuration: Configuration


def pack_configuration(configuration: Configuration) -> bytes:
    """Body of a configuration entry of this machine: the whole new configuration."""
    packed: bytes = msgpack.packb(configuration)
    return packed


def unpack_configuration(raw: Any) -> Configuration:
    """Inverse; takes bytes or what msgpack made of them."""
    epoch, k, m, members = msgpack.unpackb(raw) if isinstance(raw, bytes) else raw
    return Configuration(epoch, k, m, tuple(Member(o, i) for o, i in members))


class ChainMachine:
    """See machine.interface.StateMachine. `observe(slot, entry)` is called at each apply."""

    def __init__(
        self, genesis: Configuration, engine: Engine, observe: Callable[[int, bytes], None]
    ) -> None:
        self.formed = True
        self.applied = 0
        self.chain = 0
        self.log_time_ms = 0
        self.barrier = ZERO_BALLOT
        self.configuration = genesis
        self._observe = observe
        self._dirty = False
        raw = engine.get(Table.STATE, _KEY)
        if raw is not None:
            applied, chain, log_time, barrier, configuration = msgpack.unpackb(raw)
            self._take(
                ChainState(
                    applied,
                    chain,
                    log_time,
                    Ballot(*barrier),
                    unpack_configuration(configuration),
                )
            )

    def _take(self, state: ChainState) -> None:
        self.applied, self.chain, self.log_time_ms, self.barrier, self.configuration = state

    def snapshot(self) -> ChainState:
        """The whole state."""
        return ChainState(
            self.applied, self.chain, self.log_time_ms, self.barrier, self.configuration
        )

    def restore(self, state: ChainState) -> None:
        """Replace the state by a peer's."""
        self._take(state)
        self._dirty = True

    def apply(self, slot: int, entry: bytes) -> None:
        """Apply the next entry."""
        assert slot == self.applied + 1, "applied out of order"
        self._observe(slot, entry)
        self.applied = slot
        self.chain = zlib.crc32(entry, self.chain)
        self.log_time_ms = max(self.log_time_ms, entries.stamp_of(entry))
        kind = entry[0]
        if kind == entries.BARRIER:
            ballot = Ballot(*msgpack.unpackb(entry[entries.HEADER_BYTES :]))
            self.barrier = max(self.barrier, ballot)
        elif kind == entries.CONFIGURATION:
            new = unpack_configuration(entry[entries.HEADER_BYTES :])
            if new.epoch == self.configuration.epoch + 1:
                self.configuration = new
        self._dirty = True

    def drain_writes(self) -> list[StorageOperation]:
        """One row holds everything."""
        if not self._dirty:
            return []
        self._dirty = False
        return [Put(Table.STATE, _KEY, msgpack.packb(self.snapshot()))]

    def drain_outcomes(self) -> list[Outcome]:
        """None: commands are opaque here."""
        return []

    def drain_events(self) -> list[Event]:
        """None."""
        return []
