"""Handing pending commands to the leader, wherever it sits, and taking others' commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distkv.core.replica import Replica
from distkv.ids import Member
from distkv.machine.holders import without_holders
from distkv.machine.parsing import parse_command
from distkv.member.messages import Forward, NotLeader
from distkv.member.pending import PendingCommands

FORWARD_BYTES_MAX = 512 * 1024
"""Commands of one Forward: well below what one log entry may hold."""

NOT_LEADER_PAUSE_SECONDS = 0.02
"""After a NotLeader: long enough for news of the new leader, short against a failover."""


class CommandRouter:
    """Moves commands from `pending` to the leader of the moment."""

    def __init__(
        self,
        replica: Replica,
        pending: PendingCommands,
        send: Callable[[int, object], None],
        replaced: Callable[[], list[Member]],
    ) -> None:
        """`replaced()`: members in whose place another incarnation is connected now."""
        self.replica = replica
        self.pending = pending
        self._send = send
        self._replaced = replaced
        self._addressee: object = None
        self._paused_until = 0.0

    def route(self, now: float) -> bool:
        """Hand over what is unsent; False: there was nothing to do or nobody to take it."""
        leader = self.replica.leader
        if leader is None:
            return False
        addressee = (leader, self.replica.ballot)
        if addressee != self._addressee:
            # Whatever an older leader took may be lost with it; sessions make this safe.
            self._addressee = addressee
            self.pending.put_back()
        if not self.pending.has_unsent or now < self._paused_until:
            return False
        if leader == self.replica.me:
            return self._propose(now)
        taken = self.pending.take_unsent(now, FORWARD_BYTES_MAX)
        for pending in taken:
            pending.copies += 1
        if taken:
            self._send(leader.ordinal, Forward(tuple(pending.command for pending in taken)))
        return bool(taken)

    def _propose(self, now: float) -> bool:
        taken = self.pending.take_unsent(now, FORWARD_BYTES_MAX)
        if not taken:
            return False
        if not self.replica.propose(self._vouched([pending.command for pending in taken])):
            self.pending.refused(taken)
            self._paused_until = now + NOT_LEADER_PAUSE_SECONDS
            return False
        for pending in taken:
            pending.copies += 1
        return True

    def on_forward(self, sender: int, message: Forward) -> None:
        """A peer's commands for our next batch.

        Raises UnknownEntry for one that no node could apply: it must never be proposed.
        """
        for command in message.commands:
            parse_command(command)
        if self.replica.propose(self._vouched(message.commands)):
            self.replica.hurry(sender)
        else:
            self._send(sender, NotLeader())

    def _vouched(self, commands: Sequence[bytes]) -> Sequence[bytes]:
        """What a leader may propose: no put counts a holder whose disk it knows to be lost."""
        gone = self._replaced()
        return [without_holders(command, gone) for command in commands] if gone else commands

    def on_not_leader(self, now: float) -> None:
        """The peer took nothing: wait for news of the leader, then send all again."""
        self._paused_until = now + NOT_LEADER_PAUSE_SECONDS
        self.pending.put_back()
