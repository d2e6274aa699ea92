"""Client histories and their linearizability, per key (Wing and Gong 1993, with memo).

A key is an object of its own: a register with put, conditional put, delete and get, a
counter with increment, or a list with append. An operation whose outcome the client never
learnt may take effect at any later time, or never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

INFINITY = float("inf")
STATES_MAX = 300_000
"""Search steps after which a key's history counts as too hard, which is reported."""

ANY = "*"
"""In `expected`: unconditional. In `before`: the client was not told."""


class Effect(NamedTuple):
    """What an operation does to a key, and what it was answered.

    kind: put, delete, get, increment, append, expire. `value`: put: the token written; get:
    the state read (None: absent); increment: the number returned; append: (token, pieces
    there are then). `expected`: state that the condition demanded. `met`: False if it was
    found not to hold. `existed`: whether the key was said to be there before. `before`: the
    state it was said to have before.
    """

    kind: str
    value: object = None
    expected: object = ANY
    met: bool = True
    existed: bool | None = None
    before: object = ANY


@dataclass(slots=True)
class Call:
    """One client operation on one key; `returned` INFINITY: outcome unknown."""

    client: str
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
    kind = effect.kind
    if kind == "get":
        return is_open or state == effect.value, state
    if kind == "expire":
        return state == effect.value, None
    holds = effect.expected == ANY or state == effect.expected
    if not is_open:
        if holds != effect.met:
            return False, state
        if effect.existed is not None and effect.existed != (state is not None):
            return False, state
        if effect.before != ANY and effect.before != state:
            return False, state
    if not holds:
        return True, state
    if kind == "put":
        return True, effect.value
    if kind == "delete":
        return True, None
    if kind == "increment":
        after = (state if isinstance(state, int) else 0) + 1
        return is_open or after == effect.value, after
    assert kind == "append"
    assert isinstance(effect.value, tuple)
    pieces = (*(state if isinstance(state, tuple) else ()), effect.value[0])
    return is_open or len(pieces) == effect.value[1], pieces


class TooHard(Exception):
    """The search was given up."""


def check_key(calls: list[Call]) -> str:
    """Empty if the calls on one key are linearizable, else what is wrong. Raises TooHard."""
    calls = [c for c in calls if not (c.open and c.effect.kind == "get")]
    calls.sort(key=lambda c: (c.invoked, c.returned))
    total = len(calls)
    must = 0
    for index, call in enumerate(calls):
        if not call.open:
            must |= 1 << index
    seen: set[tuple[int, object]] = set()
    stack: list[tuple[int, object]] = [(0, None)]
    best, best_done = -1, 0
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return ""
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > STATES_MAX:
            raise TooHard(f"{total} calls on {calls[0].key!r}")
        progress = (done & must).bit_count()
        if progress > best:
            best, best_done = progress, done
        _expand(calls, done, state, stack)
    return _explain(calls, best_done)


def _expand(calls: list[Call], done: int, state: object, stack: list[tuple[int, object]]) -> None:
    """Push what may come next; calls with a known answer, and earlier ones, are tried first."""
    frontier = INFINITY
    candidates: list[int] = []
    for index, call in enumerate(calls):
        if done >> index & 1:
            continue
        if call.invoked > frontier:
            break
        candidates.append(index)
        if call.returned < frontier:
            frontier = call.returned
    candidates = [i for i in candidates if calls[i].invoked <= frontier]
    candidates.sort(key=lambda i: (calls[i].open, i), reverse=True)
    for index in candidates:
        call = calls[index]
        fits, after = _step(call.effect, state, call.open)
        if fits and not (call.open and after == state):
            stack.append((done | 1 << index, after))


def _explain(calls: list[Call], done: int) -> str:
    shown = "\n".join(
        f"  {'.' if done >> i & 1 else '?'} {c.client} [{c.invoked:.4f}, {c.returned:.4f}] "
        f"{c.effect}"
        for i, c in enumerate(calls)
    )
    return f"key {calls[0].key!r}: no order explains the answers:\n{shown}"


def check(calls: list[Call]) -> tuple[list[str], int]:
    """Violations over all keys, and how many keys were too hard to judge."""
    keys: dict[bytes, list[Call]] = {}
    for call in calls:
        keys.setdefault(call.key, []).append(call)
    found, hard = [], 0
    for key in sorted(keys):
        try:
            problem = check_key(keys[key])
        except TooHard:
            hard += 1
            continue
        if problem:
            found.append(problem)
    return found, hard
