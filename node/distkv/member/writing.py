"""Coordinating a write: disperse large values, submit the command, understand its outcome.

A write whose values are all small goes straight to the log. A refusal at apply (barrier,
boot, holders, epoch: the world changed between dispersal and apply) does not consume the
sequence number, so the same command identity is tried again with a fresh dispersal. A write
that needs a coded old value keeps its identity too: copies of it may still be on their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distkv.data.dispersal import Dispersal, Inline
from distkv.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    DeadlineExceeded,
    DistKVError,
    NotFormed,
    OutcomeUnknown,
    TooLarge,
    UnknownSession,
)
from distkv.kernel import Future, TimedOut
from distkv.machine.commands import Dispersed, pack_write, wire_basis, wire_mutations
from distkv.machine.interface import Outcome, OutcomeKind, Record
from distkv.member.pending import UNREMEMBERED, Loose
from distkv.member.reading import as_client_error, meta_of
from distkv.member.sequences import Sequences
from distkv.operations import (
    Append,
    Expiry,
    Increment,
    IncrementFloat,
    Mutation,
    Put,
    Value,
    Write,
    Written,
)
from distkv.storage.base import CorruptRow

if TYPE_CHECKING:
    from distkv.member.seat import Seat

DISPERSE_AGAIN = ("barrier", "boot", "settled", "holders", "epoch", "coordinator")
"""Refusals at apply that a fresh dispersal may get round."""

ONCE_PREFIX = b"\x00K"
"""Sessions of idempotency keys open with their only command."""


class _Identity:
    """What a write is applied under, once. `loose`: see pending.Loose."""

    __slots__ = ("implicit", "loose", "low", "sequence", "session")

    def __init__(self, session: bytes, sequence: int, low: int, implicit: bool) -> None:
        self.session = session
        self.sequence = sequence
        self.low = low
        self.implicit = implicit
        self.loose = False


class Writer:
    """Executes `operations.Write`."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.sequences = Sequences()

    def execute(self, write: Write, deadline: float, future: Future[object]) -> None:
        """Start it; `future` gets the results or a DistKVError."""
        inline_max = self._seat.inline_max
        try:
            for mutation in write.mutations:
                if type(mutation) is Put and (
                    type(mutation.value) is not bytes or len(mutation.value) > inline_max
                ):
                    self._seat.spawn(self._large(write, deadline), future)
                    return
            self._small(write, deadline, future)
        except DistKVError as error:
            future.set_exception(error)

    # -- all values inline: no task, no allocation beyond the command

    def _small(self, write: Write, deadline: float, future: Future[object]) -> None:
        try:
            mutations = wire_mutations(write.mutations)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        identity = self._identify(write)
        submitted = self._submit(identity, mutations, deadline)

        def done(outcome: Future[Outcome]) -> None:
            if outcome.error is not None:
                self._answered(identity)
                future.set_exception(outcome.error)
                return
            kind, detail = outcome.result()[2:]
            if kind is OutcomeKind.NEEDS_VALUE:
                identity.loose = type(outcome.result()) is Loose
                self._seat.spawn(self._with_old_value(write, identity, deadline), future)
                return
            self._answered(identity)
            if kind is OutcomeKind.APPLIED and not _has_coded_previous(detail):
                own = detail[: len(write.mutations)]  # type: ignore[index]
                future.set_result([_plain(result) for result in own])
            elif kind is OutcomeKind.APPLIED:
                self._seat.spawn(self._own_results(write, detail, deadline), future)
            else:
                future.set_exception(failure(outcome.result()))

        submitted.add_callback(done)

    # -- values that are dispersed

    async def _large(self, write: Write, deadline: float) -> object:
        identity = self._identify(write)
        dispersals: dict[int, Dispersal] = {}
        try:
            for index, mutation in enumerate(write.mutations):
                if type(mutation) is Put:
                    dispersal = self._disperse(mutation)
                    if dispersal is not None:
                        dispersals[index] = dispersal
            outcome = await self._decide(identity, write.mutations, (), dispersals, deadline)
            if outcome.kind is OutcomeKind.NEEDS_VALUE:
                return await self._with_old_value(write, identity, deadline)
        finally:
            self._answered(identity)
            self._let_go(dispersals)
        if outcome.kind is not OutcomeKind.APPLIED:
            raise failure(outcome)
        return await self._own_results(write, outcome.detail, deadline)

    def _let_go(self, dispersals: dict[int, Dispersal]) -> None:
        """Nobody waits any more.

        A value whose outcome is unknown counts as decided too: the next settled entry makes
        it so, because a put below the settled mark is refused at apply.
        """
        for dispersal in dispersals.values():
            dispersal.close()

    def _disperse(self, put: Put) -> Dispersal | None:
        if isinstance(put.value, Dispersal):
            return put.value
        if not isinstance(put.value, bytes):
            raise BadRequest("the value of a put must be bytes or an upload of this store")
        if len(put.value) <= self._seat.inline_max:
            return None
        return self._seat.data.disperser.disperse(put.value)

    async def _decide(
        self,
        identity: _Identity,
        mutations: Sequence[Mutation],
        guards: tuple[tuple[object, ...], ...],
        dispersals: dict[int, Dispersal],
        deadline: float,
    ) -> Outcome:
        """Disperse and submit until an applied entry decides it. Raises DistKVError."""
        try:
            outcome = await self._submitted(identity, mutations, guards, dispersals, deadline)
        except (TimedOut, DistKVError, CorruptRow) as error:
            raise self._said(identity, error) from error
        # A number that is consumed is so for all copies.
        if identity.loose and outcome.kind in UNREMEMBERED:
            outcome = Loose(*outcome)
        return outcome

    async def _submitted(
        self,
        identity: _Identity,
        mutations: Sequence[Mutation],
        guards: tuple[tuple[object, ...], ...],
        dispersals: dict[int, Dispersal],
        deadline: float,
    ) -> Outcome:
        submitted = False
        again = False
        try:
            while True:
                plain, named = await self._dispersed(mutations, dispersals, again, deadline)
                try:
                    wire = wire_mutations(plain, named)
                except ValueError as error:
                    raise BadRequest(str(error)) from error
                future = self._submit(identity, (*guards, *wire), deadline)
                submitted = True
                outcome = await future
                identity.loose |= type(outcome) is Loose
                for dispersed in named.values():
                    self._seat.data.disperser.decided(dispersed.value_id)
                if outcome.kind is not OutcomeKind.REFUSED:
                    return outcome
                submitted = False
                again = True
                if not named or outcome.detail not in DISPERSE_AGAIN:
                    return outcome
                if self._seat.kernel.now >= deadline:
                    raise DeadlineExceeded(
                        f"the value was refused ({outcome.detail}) and the deadline is over; "
                        "nothing was changed"
                    )
        finally:
            if not submitted:
                for dispersal in dispersals.values():
                    if not dispersal.closed:
                        dispersal.abandon()

    async def _dispersed(
        self,
        mutations: Sequence[Mutation],
        dispersals: dict[int, Dispersal],
        again: bool,
        deadline: float,
    ) -> tuple[list[Mutation], dict[int, Dispersed]]:
        plain = list(mutations)
        named: dict[int, Dispersed] = {}
        starting = [
            (index, d.again(deadline) if again else d.outcome(deadline))
            for index, d in dispersals.items()
        ]
        for index, future in starting:
            result = await future
            if isinstance(result, Inline):
                put = plain[index]
                assert type(put) is Put
                plain[index] = put._replace(value=result.value)
            else:
                named[index] = Dispersed(*result)
        return plain, named

    # -- mutations that need the old value, and that one is coded

    async def _with_old_value(self, write: Write, identity: _Identity, deadline: float) -> object:
        """Read, compute, put if nothing changed meanwhile; a guard consumes no sequence.

        All under the one sequence number. The first command consumed none either, so a copy of
        it would be applied beside a put of another number, once the key is gone.
        """
        try:
            outcome = await self._compute(write, identity, deadline)
            while outcome.kind is OutcomeKind.NEEDS_VALUE:
                if self._seat.kernel.now >= deadline:
                    text = "the key changed faster than it could be read; try again"
                    raise self._said(identity, DeadlineExceeded(text))
                outcome = await self._compute(write, identity, deadline)
        finally:
            self._answered(identity)
        if outcome.kind is not OutcomeKind.APPLIED:
            raise failure(outcome)
        # Guards come first and carry the results; they may be those of an earlier
        # try of this command, which another node computed from another value.
        return await self._own_results(write, outcome.detail, deadline)

    async def _compute(self, write: Write, identity: _Identity, deadline: float) -> Outcome:
        try:
            mutations, guards = await self._computed(write.mutations, deadline)
        except (TimedOut, DistKVError, CorruptRow) as error:
            raise self._said(identity, error) from error
        dispersals: dict[int, Dispersal] = {}
        try:
            for index, mutation in enumerate(mutations):
                if type(mutation) is Put:
                    dispersal = self._disperse(mutation)
                    if dispersal is not None:
                        dispersals[index] = dispersal
            return await self._decide(identity, mutations, guards, dispersals, deadline)
        finally:
            self._let_go(dispersals)

    async def _computed(
        self, mutations: Sequence[Mutation], deadline: float
    ) -> tuple[list[Mutation], tuple[tuple[object, ...], ...]]:
        """Each mutation that needs an old value becomes a put, guarded by the version read."""
        changed: list[Mutation] = []
        guards: list[tuple[object, ...]] = []
        for mutation in mutations:
            if isinstance(mutation, Append | Increment | IncrementFloat):
                if len(mutations) > 1:
                    raise BadRequest(
                        "a write of several mutations may not append to, or count on, a value "
                        f"that is stored coded (key {mutation.key!r}): send it alone"
                    )
                value = await self._seat.reader.whole(mutation.key, deadline)
                version = value.meta.version if value is not None else 0
                old = value.data if value is not None and isinstance(value.data, bytes) else b""
                if not isinstance(mutation, Append):
                    # Shorter ones are inline: dispersal.inline_max is above any number's length.
                    raise BadRequest("value is not an integer or out of range")
                new = old + mutation.piece
                if len(new) > self._seat.options.value_max:
                    raise TooLarge(
                        f"the value would have {len(new)} bytes, value_max is "
                        f"{self._seat.options.value_max}"
                    )
                guards.append(wire_basis(mutation.key, version, len(new)))
                mutation = Put(mutation.key, new, Expiry(keep=True))
            changed.append(mutation)
        return changed, tuple(guards)

    # -- identities and results

    def _identify(self, write: Write) -> _Identity:
        if write.session is None:
            seat = self._seat
            if seat.pending.full:
                raise Busy(
                    f"pending_commands_max ({seat.options.pending_commands_max}) commands wait "
                    "already; try again"
                )
            sequence = self.sequences.take()
            return _Identity(seat.session, sequence, self.sequences.low, False)
        implicit = write.session.startswith(ONCE_PREFIX)
        return _Identity(write.session, write.sequence, write.low, implicit)

    def _answered(self, identity: _Identity) -> None:
        if identity.session == self._seat.session:
            self.sequences.done(identity.sequence)

    def _said(self, identity: _Identity, error: Exception) -> Exception:
        """The error to tell: that nothing was changed, only if no copy can change that."""
        told = as_client_error(error)
        if not identity.loose or told is None or told.applied != "no":
            return error
        if isinstance(error, CorruptRow):
            self._seat.healer.met(error)
        return OutcomeUnknown(
            f"the command was sent more than once and may still take effect; this try: {told}"
        )

    def _submit(
        self, identity: _Identity, mutations: Sequence[tuple[object, ...]], deadline: float
    ) -> Future[Outcome]:
        session, sequence = identity.session, identity.sequence
        command = pack_write(session, sequence, identity.low, identity.implicit, mutations)
        if len(command) > self._seat.options.replica.batch_bytes:
            raise TooLarge(
                f"the write is {len(command)} bytes of metadata and small values; one log entry "
                f"holds {self._seat.options.replica.batch_bytes} (batch_bytes): split it"
            )
        return self._seat.pending.submit(session, sequence, command, deadline)

    async def _own_results(self, write: Write, detail: object, deadline: float) -> list[object]:
        return (await self._results(detail, deadline))[: len(write.mutations)]

    async def _results(self, detail: object, deadline: float) -> list[object]:
        results: list[object] = []
        assert isinstance(detail, list)
        for result in detail:
            if type(result) is tuple and result[2] is not None and result[2].value is None:
                version, existed, record = result
                try:
                    previous = await self._seat.kernel.within(
                        deadline, self._seat.reader.value_of(record, deadline)
                    )
                except (TimedOut, DistKVError) as error:
                    raise OutcomeUnknown(
                        f"the write took effect, but the previous value could not be read: {error}"
                    ) from error
                results.append(Written(version, existed, previous))
            else:
                results.append(_plain(result))
        return results


def _has_coded_previous(detail: object) -> bool:
    for result in detail:  # type: ignore[attr-defined]
        if type(result) is tuple and result[2] is not None and result[2].value is None:
            return True
    return False


def _plain(result: object) -> object:
    if type(result) is not tuple:
        return result
    version, existed, previous = result
    return Written(version, existed, None if previous is None else inline_value(previous))


def inline_value(record: Record) -> Value:
    """The value of a record that is replicated whole."""
    assert record.value is not None
    return Value(meta_of(record), record.value)


def failure(outcome: Outcome) -> DistKVError:
    """The error a client sees for an outcome that is not APPLIED."""
    kind, detail = outcome.kind, outcome.detail
    if type(outcome) is Loose:
        return OutcomeUnknown(
            f"the command was refused ({detail}), but it was sent more than once and may still "
            "take effect"
        )
    if kind is OutcomeKind.CONDITION:
        return ConditionFailed("the record is not as the condition demands; nothing was changed")
    if kind is OutcomeKind.FAILED:
        return BadRequest(str(detail))
    if kind is OutcomeKind.UNKNOWN_SESSION:
        return UnknownSession(
            "unknown session: it expired or was never opened; whether an earlier try of this "
            "command was applied is not known"
        )
    if detail == "not_formed":
        return NotFormed("the owner has not recorded the formation yet; nothing was changed")
    if detail in ("window", "sessions"):
        return Busy(
            "too many commands of this session wait for their answers to be taken; try again"
            if detail == "window"
            else "too many sessions or idempotency keys are remembered; try again later"
        )
    return OutcomeUnknown(f"the command was refused again and again ({detail})")
