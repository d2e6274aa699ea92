"""What a client is told when a write fails of which another copy may be on its way."""

from __future__ import annotations

import dataclasses

import pytest

from distkv.errors import OutcomeUnknown, TooLarge
from distkv.machine.interface import Outcome, OutcomeKind
from distkv.member.pending import Loose, PendingCommands
from distkv.operations import Append, Delete, Get, Operation, Put, Value, Write
from distkv.simulation.full_faults import CALM
from distkv.simulation.full_world import World

VALUE_MAX = 8192
SESSION = b"gateway-0001"


class OneNode:
    """A whole cluster of one node."""

    def __init__(self) -> None:
        self.world = World(1, (1, 0), CALM, transport=False)
        self.world.member_options = dataclasses.replace(
            self.world.member_options, value_max=VALUE_MAX, stripe_bytes=4096
        )
        self.world.inline_max = 64
        self.world.begin()
        assert self.world.run_until(lambda: self.world.hosts[0].leads, 20.0)
        member = self.world.hosts[0].member
        assert member is not None
        assert member.seat is not None
        self.seat = member.seat
        assert self.world.run_until(lambda: self.seat.booted and self.seat.machine.formed, 20.0)

    def ask(self, operation: Operation, copies: int = 1) -> object:
        """The result or the error; a write reaches the log `copies` times before its outcome."""
        future = self.world.hosts[0].execute(operation, self.world.now + 5.0)
        assert future is not None
        pending = self.seat.pending
        if isinstance(operation, Write):
            for _ in range(copies - 1):
                assert self.seat.router.route(self.seat.kernel.now)
                pending.put_back()
        assert self.world.run_until(lambda: future.done, 6.0)
        return future.error or future.result()


@pytest.mark.parametrize(("copies", "error"), [(1, TooLarge), (2, OutcomeUnknown)])
def test_a_limit_met_after_the_first_try_is_told_only_if_no_copy_is_left(
    copies: int, error: type[Exception]
) -> None:
    node = OneNode()
    node.ask(Write((Put(b"list", b"x" * (VALUE_MAX - 10)),)))
    assert type(node.ask(Write((Append(b"list", b"y" * 20),)), copies)) is error


def test_an_append_that_is_sent_often_is_done_once() -> None:
    node = OneNode()
    node.ask(Write((Put(b"list", b"x" * 300),)))
    assert node.ask(Write((Append(b"list", b"y" * 20),)), 3) == [320]
    assert node.ask(Write((Append(b"list", b"z" * 20),))) == [340]
    value = node.ask(Get(b"list"))
    assert isinstance(value, Value)
    assert value.data == b"x" * 300 + b"y" * 20 + b"z" * 20
    node.ask(Write((Delete(b"list"),)))
    assert node.ask(Get(b"list")) is None


@pytest.mark.parametrize(("copies", "code"), [(1, "unknown_session"), (2, "outcome_unknown")])
def test_a_gateway_may_send_anew_only_what_was_sent_once(copies: int, code: str) -> None:
    """It takes `unknown_session` for: certainly not applied, under another session it is new."""
    error = OneNode().ask(Write((Delete(b"k"),), SESSION, 1, 1), copies)
    assert isinstance(error, OutcomeUnknown)
    assert error.code == code


@pytest.mark.parametrize(
    ("kind", "copies", "loose"),
    [
        (OutcomeKind.REFUSED, 1, False),
        (OutcomeKind.REFUSED, 2, True),
        (OutcomeKind.NEEDS_VALUE, 2, True),
        (OutcomeKind.UNKNOWN_SESSION, 1, False),
        (OutcomeKind.UNKNOWN_SESSION, 2, True),
        (OutcomeKind.CONDITION, 2, False),
        (OutcomeKind.APPLIED, 2, False),
    ],
)
def test_loose_is_what_is_not_remembered_and_was_sent_again(
    kind: OutcomeKind, copies: int, loose: bool
) -> None:
    pending = PendingCommands(1.0, 10)
    future = pending.submit(SESSION, 1, b"command", 10.0)
    for command in pending.take_unsent(0.0, 1000):
        command.copies = copies
    pending.decide(Outcome(SESSION, 1, kind, 0))
    assert isinstance(future.result(), Loose) == loose
    assert future.result() == (SESSION, 1, kind, 0)
