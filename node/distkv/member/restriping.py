"""Putting a value that was coded anew in the place of the old one, through the log.

The command is a compare-and-set of the value id under this node's own session, so it is
applied once however often it is sent, and refused like any put (protocol section 2) when what
it was dispersed under no longer holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.data.ports import Dispersed
from distkv.errors import Busy
from distkv.ids import ValueId
from distkv.kernel import Future
from distkv.machine import commands
from distkv.machine.interface import Outcome, OutcomeKind

if TYPE_CHECKING:
    from distkv.member.seat import Seat


def submit(
    seat: Seat, key: bytes, old: ValueId, dispersed: Dispersed, deadline: float
) -> Future[bool]:
    """See data.ports.Coordinator.restripe."""
    placed: Future[bool] = Future()
    if seat.pending.full or seat.closing:
        placed.set_exception(Busy("commands of clients come first; it is tried again"))
        return placed
    sequences = seat.writer.sequences
    sequence = sequences.take()
    mutation = commands.wire_restripe(key, old, commands.Dispersed(*dispersed))
    command = commands.pack_write(seat.session, sequence, sequences.low, False, (mutation,))

    def decided(outcome: Future[Outcome]) -> None:
        sequences.done(sequence)
        if outcome.error is not None:
            placed.set_exception(outcome.error)
        else:
            placed.set_result(outcome.result().kind is OutcomeKind.APPLIED)

    seat.pending.submit(seat.session, sequence, command, deadline).add_callback(decided)
    seat.owner.poke()
    return placed
