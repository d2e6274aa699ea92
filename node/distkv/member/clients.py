"""The door of a seat for clients: what is refused at once, and who executes the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.errors import (
    BadRequest,
    DiskFull,
    DistKVError,
    NoQuorum,
    NotFormed,
    ShuttingDown,
    full_text,
)
from distkv.kernel import Future, TimedOut
from distkv.machine.commands import pack_open
from distkv.machine.interface import Outcome, OutcomeKind
from distkv.member.standing import describe
from distkv.member.writing import failure
from distkv.operations import Check, Delete, Flush, OpenSession, Operation, Upload, Write

if TYPE_CHECKING:
    from distkv.member.seat import Seat


def _frees(write: Write) -> bool:
    """It only makes room: refusing it would leave a full cluster full for ever."""
    return all(type(mutation) in (Delete, Flush, Check) for mutation in write.mutations)


class Clients:
    """See the module. A node that started takes requests, but they wait for its boot entry."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._waiting_for_boot: Future[None] = Future()

    def execute(self, operation: Operation, deadline: float) -> Future[object]:
        """See Member.execute."""
        future: Future[object] = Future()
        error = self._refusal(operation)
        if error is not None:
            future.set_exception(error)
        elif self._seat.booted:
            self._dispatch(operation, deadline, future)
        else:
            self._seat.spawn(self._when_booted(operation, deadline), future)
        return future

    def booted(self) -> None:
        """The boot of this node is in the log: those who wait go on."""
        self._waiting_for_boot.set_result(None)

    def refuse_unbooted(self) -> None:
        """There is no quorum: those who wait for the boot entry need not wait for it."""
        if not self._seat.booted:
            waiting, self._waiting_for_boot = self._waiting_for_boot, Future()
            waiting.set_exception(NoQuorum(self._seat.situation()))

    async def _when_booted(self, operation: Operation, deadline: float) -> object:
        seat = self._seat
        try:
            await seat.kernel.within(deadline, self._waiting_for_boot)
        except TimedOut as late:
            raise NoQuorum(
                f"this node started and its start is not in the log yet; {seat.situation()}"
            ) from late
        future: Future[object] = Future()
        self._dispatch(operation, deadline, future)
        return await future

    def _dispatch(self, operation: Operation, deadline: float, future: Future[object]) -> None:
        if type(operation) is Write:
            self._seat.writer.execute(operation, deadline, future)
        elif type(operation) is OpenSession:
            self._open_session(operation.session, deadline, future)
        else:
            self._seat.reader.execute(operation, deadline, future)  # type: ignore[arg-type]

    def _open_session(self, session: bytes, deadline: float, future: Future[object]) -> None:
        def done(outcome: Future[Outcome]) -> None:
            if outcome.error is not None:
                future.set_exception(outcome.error)
            elif outcome.result().kind is OutcomeKind.APPLIED:
                future.set_result(True)
            else:
                # Opening twice is opening once: other copies of it do not matter.
                future.set_exception(failure(Outcome(*outcome.result())))

        try:
            command = pack_open(session)
        except ValueError as error:
            future.set_exception(BadRequest(str(error)))
            return
        self._seat.pending.submit(session, 0, command, deadline).add_callback(done)

    def _refusal(self, operation: Operation) -> DistKVError | None:
        seat = self._seat
        if not seat.machine.configuration.is_voter(seat.member):
            return NotFormed(f"this node is not a member: {describe(seat)}")
        if not seat.machine.formed:
            return NotFormed("the owner has not recorded the formation yet; try again")
        if seat.closing:
            return ShuttingDown("this node is stopping; nothing was changed, ask another")
        if seat.quorum_lost:
            return NoQuorum(seat.situation())
        if seat.owner.disk_full and type(operation) is Write and not _frees(operation):
            return self._disk_full()
        return None

    def _disk_full(self) -> DiskFull:
        seat = self._seat
        return DiskFull(
            f"{full_text(seat.full_disks)}: node {seat.member.ordinal} only reads and deletes "
            "until space is back; write through another node"
        )

    def upload(self, length: int | None) -> Upload:
        """See Member.upload."""
        seat = self._seat
        if not seat.machine.configuration.is_voter(seat.member):
            raise NotFormed(f"write through another node, this is no member: {describe(seat)}")
        if seat.owner.disk_full:
            raise self._disk_full()
        if seat.closing:
            raise ShuttingDown("this node is stopping; write through another node")
        if seat.quorum_lost:
            raise NoQuorum(seat.situation())
        return seat.data.disperser.upload(length)
