"""Commands on their way through the log: sent to the leader, awaited at the own apply.

The coordinator learns the outcome of a command when it applies the entry itself, so a lost
answer cannot exist. A lost *request* can: until the outcome is there, every command is sent
again to each new leader and after a silence; its session makes that safe (applied once).
What is remembered of no outcome is not safe by that alone: see `Loose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from distkv.errors import DistKVError, NoQuorum, OutcomeUnknown
from distkv.kernel import Future
from distkv.machine.interface import NOT_CONSUMED, Outcome, OutcomeKind

Key = tuple[bytes, int]

UNREMEMBERED = (*NOT_CONSUMED, OutcomeKind.UNKNOWN_SESSION)
"""Outcomes that say nothing of other copies of the same command."""


class Loose(Outcome):
    """This copy of a command changed nothing, and was not the only one.

    Another may yet be applied, once what ruled out this one is over; or it was, before the
    session ended, unseen because a snapshot was installed instead of its entry. So nobody may
    be told that nothing was changed, unless its number is consumed (by whatever command).
    """

    __slots__ = ()


class PendingCommand:
    """One command; `copies`: how often it was handed to a leader. Each is proposed once at most."""

    __slots__ = ("command", "copies", "deadline", "future", "sent_at")

    def __init__(self, command: bytes, deadline: float) -> None:
        self.command = command
        self.deadline = deadline
        self.future: Future[Outcome] = Future()
        self.copies = 0
        self.sent_at = 0.0

    @property
    def sent(self) -> bool:
        """Whether any leader may have proposed it."""
        return self.copies > 0


class PendingCommands:
    """All commands this node coordinates, in order of submission."""

    def __init__(self, resend_after: float, limit: int) -> None:
        self.resend_after = resend_after
        self.limit = limit
        self._commands: dict[Key, PendingCommand] = {}
        self._unsent: list[PendingCommand] = []

    def __len__(self) -> int:
        return len(self._commands)

    def undecided(self) -> Iterable[PendingCommand]:
        """All of them, in order of submission."""
        return self._commands.values()

    @property
    def full(self) -> bool:
        """No more commands are taken (limit `pending_commands_max`)."""
        return len(self._commands) >= self.limit

    @property
    def has_unsent(self) -> bool:
        """Whether `take_unsent` would return anything."""
        return bool(self._unsent)

    def submit(
        self, session: bytes, sequence: int, command: bytes, deadline: float
    ) -> Future[Outcome]:
        """Queue a command; the same (session, sequence) again joins the first future."""
        known = self._commands.get((session, sequence))
        if known is not None and not known.future.done:
            known.deadline = max(known.deadline, deadline)
            return known.future
        pending = PendingCommand(command, deadline)
        self._commands[(session, sequence)] = pending
        self._unsent.append(pending)
        return pending.future

    def take_unsent(self, now: float, bytes_max: int) -> list[PendingCommand]:
        """Commands to hand to the leader now, up to `bytes_max` (at least one)."""
        taken: list[PendingCommand] = []
        size = 0
        position = 0
        for pending in self._unsent:
            position += 1
            if pending.future.done:
                continue
            taken.append(pending)
            pending.sent_at = now
            size += len(pending.command)
            if size >= bytes_max:
                break
        del self._unsent[:position]
        return taken

    def refused(self, taken: list[PendingCommand]) -> None:
        """No leader took these: they wait at the front again."""
        self._unsent[:0] = taken

    def put_back(self) -> None:
        """Nothing that is undecided may have reached a leader for good: send all again."""
        self._unsent = [p for p in self._commands.values() if not p.future.done]

    def decide(self, outcome: Outcome) -> None:
        """An applied entry decided this command."""
        pending = self._commands.pop((outcome.session, outcome.sequence), None)
        if pending is not None:
            if pending.copies > 1 and outcome.kind in UNREMEMBERED:
                outcome = Loose(*outcome)
            pending.future.set_result(outcome)

    def sweep(self, now: float, describe: Callable[[], str]) -> None:
        """Fail what is past its deadline, send again what was not answered for long."""
        resend = False
        expired: list[tuple[Key, PendingCommand]] = []
        for key, pending in self._commands.items():
            if now >= pending.deadline:
                expired.append((key, pending))
            elif pending.sent and now - pending.sent_at >= self.resend_after:
                resend = True
        for key, pending in expired:
            del self._commands[key]
            pending.future.set_exception(_timeout(pending, describe()))
        if resend:
            self._resend(now)

    def _resend(self, now: float) -> None:
        waiting = {id(pending) for pending in self._unsent}
        for pending in self._commands.values():
            old = now - pending.sent_at >= self.resend_after
            if pending.sent and old and id(pending) not in waiting:
                self._unsent.append(pending)

    def refuse_unsent(self, reason: str) -> None:
        """There is no quorum: fail at once what no leader has seen."""
        refused = [(key, p) for key, p in self._commands.items() if not p.sent]
        for key, pending in refused:
            del self._commands[key]
            pending.future.set_exception(NoQuorum(reason))
        self._unsent = [p for p in self._unsent if not p.future.done]

    def fail(self, unsent: DistKVError, reason: str) -> None:
        """Nothing goes on here: `unsent` for what no leader has seen, unknown for the rest."""
        commands, self._commands = self._commands, {}
        self._unsent = []
        for pending in commands.values():
            if pending.sent:
                error: DistKVError = OutcomeUnknown(
                    f"{reason} before the command was decided; it may still take effect"
                )
            else:
                error = unsent
            pending.future.set_exception(error)


def _timeout(pending: PendingCommand, situation: str) -> DistKVError:
    if pending.sent:
        return OutcomeUnknown(
            f"the deadline passed before the command was decided; it may still take effect "
            f"({situation})"
        )
    return NoQuorum(f"the deadline passed and no leader could be reached; {situation}")
