"""Client histories and their linearizability, per key (Wing and Gong 1993, with memo).

A key is an object of its own: registers with put, conditional put, delete and get, and
counters with increment. An operation whose outcome the client never learnt may take effect
at any later time, or never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

INFINITY = float("inf")
STATES_MAX = 2_000_000
"""Search steps after which a key's history counts as too hard, which is reported."""


class Effect(NamedTuple):
    """What an operation does to a key, and what it was answered.

    kind: put, delete, get, increment. `value`: put: the token written; get: the token read
    (None: absent); increment: the counter returned. `expected`: token a conditional put
    demanded (ANY: unconditional). `met`: False if the condition was found not to hold.
    """

    kind: str
    value: object
    expected: object = "*"
    met: bool = True


ANY = "*"


@dataclass(slots=True)
class Call:
    """One client operation on one key; `returned` INFINITY: outcome unknown."""

    client: int
    key: bytes
    invoked: float
    returned: float
    effect: Effect

    @property
    def open(self) -> bool:
        """Whether the client never learnt the outcome."""
        return self.returned == INFINITY


def _step(effect: Effect, state: object, is_open: bool) -> tuple[bool, object]:
    """Whether the operation could have been answered so in `state`, and the state after."""
    if effect.kind == "get":
        return is_open or state == effect.value, state
    if effect.kind == "put":
        holds = effect.expected == ANY or state == effect.expected
        if is_open:
            return True, effect.value if holds else state
        if holds != effect.met:
            return False, state
        return True, effect.value if holds else state
    if effect.kind == "delete":
        return True, None
    assert effect.kind == "increment"
    after = (state if isinstance(state, int) else 0) + 1
    return is_open or after == effect.value, after


class TooHard(Exception):
    """The search was given up."""


def check_key(calls: list[Call]) -> str:
    """Empty if the calls on one key are linearizable, else what is wrong. Raises TooHard."""
    calls = [c for c in calls if not (c.open and c.effect.kind == "get")]
    calls.sort(key=lambda c: c.invoked)
    total = len(calls)
    must = 0
    for index, call in enumerate(calls):
        if not call.open:
            must |= 1 << index
    seen: set[tuple[int, object]] = set()
    stack: list[tuple[int, object]] = [(0, None)]
    best = 0
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return ""
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > STATES_MAX:
            raise TooHard(f"{total} calls on {calls[0].key!r}")
        best = max(best, (done & must).bit_count())
        frontier = min(c.returned for i, c in enumerate(calls) if not done >> i & 1)
        for index in range(total - 1, -1, -1):
            if done >> index & 1:
                continue
            call = calls[index]
            if call.invoked > frontier:
                continue
            fits, after = _step(call.effect, state, call.open)
            if fits:
                stack.append((done | 1 << index, after))
    shown = "\n".join(
        f"  client {c.client} [{c.invoked:.4f}, {c.returned:.4f}] {c.effect}" for c in calls
    )
    return f"key {calls[0].key!r}: no order explains the answers (best {best}):\n{shown}"


def check(calls: list[Call]) -> list[str]:
    """Violations over all keys."""
    keys: dict[bytes, list[Call]] = {}
    for call in calls:
        keys.setdefault(call.key, []).append(call)
    found = []
    for key in sorted(keys):
        problem = check_key(keys[key])
        if problem:
            found.append(problem)
    return found
