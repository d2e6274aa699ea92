"""Clients of a simulated cluster, as gateways are: one session, requests side by side, and
each one tried again through other nodes until it is answered or patience ends.

Every value says who wrote it, so that a read names the write it saw.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from distkv import errors
from distkv.kernel import Future, Kernel
from distkv.operations import (
    Append,
    Condition,
    Delete,
    Expiry,
    Get,
    GetMany,
    Increment,
    Must,
    Mutation,
    OpenSession,
    Operation,
    Put,
    Scan,
    Value,
    Write,
    Written,
)
from distkv.simulation import values
from distkv.simulation.history import ANY, INFINITY, Call, Effect

if TYPE_CHECKING:
    from distkv.simulation.full_world import World

REGISTERS = (b"r0", b"r1", b"r2", b"r3")
COUNTERS = (b"c0", b"c1")
LISTS = (b"l0",)

IMPOSSIBLE = ("bad_request", "too_large", "data_lost", "corrupt", "error")
"""Codes of errors that none of these requests may ever be answered with."""


class Answer(NamedTuple):
    """`heard` false: silence until the time-out; else `error`, or `result`."""

    heard: bool
    result: object = None
    error: errors.DistKVError | None = None

    @property
    def good(self) -> bool:
        """Answered, and not with an error."""
        return self.heard and self.error is None


SILENCE = Answer(False)


class Planned(NamedTuple):
    """One mutation, and what it would mean."""

    key: bytes
    mutation: Mutation
    effect: Effect


class Client:
    """See the module. `direct`: no session of its own, so nothing is tried twice."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.running = True
        self.busy = 0
        self.direct = world.rng.random() < (0.7 if world.lists else 0.25)
        self.session = b""
        self._sequence = 0
        self._open: dict[int, None] = {}
        self._tokens = 0
        self._known: dict[bytes, tuple[int, object]] = {}
        """Key -> (version, state) as last seen."""
        self._kernel = Kernel()
        for _ in range(world.rng.choice((1, 1, 2))):
            self._spawn(self._live())

    def stop(self) -> None:
        """Begin nothing new; what is under way is finished or given up."""
        self.running = False

    def also(self, flow: Coroutine[Any, Any, None]) -> None:
        """Run another flow beside its own."""
        self._spawn(flow)

    # -- plumbing

    def _spawn(self, flow: Coroutine[Any, Any, None]) -> None:
        self.busy += 1

        def done(task: Future[None]) -> None:
            self.busy -= 1
            if task.error is not None:
                self.world.broken(task.error)

        self._kernel.spawn(flow).add_callback(done)

    def _resolve(self, future: Future[Any], value: object) -> None:
        if not future.done:
            future.set_result(value)
            self._kernel.run(self.world.now)

    def _sleep(self, seconds: float) -> Future[None]:
        future: Future[None] = Future()
        self.world.after(seconds, lambda: self._resolve(future, None))
        return future

    def _ask(self, ordinal: int, operation: Operation, timeout: float) -> Future[Answer]:
        """Send a request to a node; silence if the node or the network eats it."""
        world = self.world
        answer: Future[Answer] = Future()
        host = world.hosts[ordinal]
        world.after(timeout + 0.01, lambda: self._resolve(answer, SILENCE))

        def arrive() -> None:
            if not host.alive:
                refused = Answer(True, None, errors.NotFormed("connection refused"))
                world.after(0.001, lambda: self._resolve(answer, refused))
                return
            future = host.execute(operation, world.now + timeout)
            if future is None:
                full = Answer(True, None, errors.DiskFull("this node waits for disk space"))
                world.after(0.001, lambda: self._resolve(answer, full))
                return
            future.add_callback(answered)

        def answered(future: Future[object]) -> None:
            if world.rng.random() < world.faults.loss:
                return
            error = future.error
            assert error is None or isinstance(error, errors.DistKVError)
            result = None if error is not None else future.result()
            delay = world.rng.uniform(0.0001, 0.001)
            world.after(delay, lambda: self._resolve(answer, Answer(True, result, error)))

        world.after(world.rng.uniform(0.0001, 0.001), arrive)
        return answer

    def _token(self) -> str:
        self._tokens += 1
        return f"{self.number}:{self._tokens}"

    def _note(self, text: str) -> None:
        self.world.note(f"client {self.number}: {text}")

    # -- what it does

    async def _live(self) -> None:
        rng = self.world.rng
        while self.running:
            await self._sleep(rng.expovariate(1.0) * self.world.think)
            if self.running:
                await rng.choices(
                    (self._get, self._get_many, self._scan, self._change, self._change_two),
                    (30, 4, 4, 60, 6),
                )[0]()

    def _node(self) -> int:
        return self.world.rng.randrange(len(self.world.hosts))

    async def _until_answered(
        self, operation: Operation, patience: float, retry: bool
    ) -> tuple[Answer, bool]:
        """The final answer, and whether an earlier or this try may have taken effect."""
        world = self.world
        end = world.now + patience
        maybe = False
        while True:
            ordinal = self._node()
            timeout = world.rng.uniform(0.3, 1.5)
            answer = await self._ask(ordinal, operation, timeout)
            if answer.good:
                return answer, True
            if answer.error is None:
                maybe = True
            else:
                if answer.error.code in IMPOSSIBLE:
                    world.violation(f"node {ordinal} answers {operation} with {answer.error!r}")
                if answer.error.code == "condition_failed":
                    return answer, True
                maybe |= answer.error.applied == "maybe"
                if answer.error.code == "unknown_session":
                    if getattr(operation, "session", None) == self.session:
                        self.session = b""
                    return answer, maybe
            if world.now >= end or not retry:
                return answer, maybe
            await self._sleep(world.rng.uniform(0.005, 0.1))

    async def _opened(self) -> bool:
        """Whether there is a session to write under."""
        if self.session or self.direct:
            return True
        session = self.world.rng.randbytes(12)
        answer, _ = await self._until_answered(OpenSession(session), 3.0, True)
        if answer.result is True:
            if not self.session:
                self.session = session
                self._sequence = 0
                self._open = {}
            return True
        return bool(self.session)

    # -- reads

    async def _read(self, operation: Operation) -> tuple[float, object] | None:
        """(when it was asked, the result), or None if there is no answer."""
        invoked = self.world.now
        ordinal = self._node()
        answer = await self._ask(ordinal, operation, self.world.rng.uniform(0.3, 1.5))
        if answer.error is not None and answer.error.code in IMPOSSIBLE:
            self.world.violation(f"node {ordinal} answers {operation} with {answer.error!r}")
        return (invoked, answer.result) if answer.good else None

    async def _get(self) -> None:
        await self.get(self.world.rng.choice((*REGISTERS, *COUNTERS, *LISTS)))

    async def get(self, key: bytes) -> None:
        """Read one key at a random node."""
        invoked = self.world.now
        ordinal = self._node()
        answer = await self._ask(ordinal, Get(key), self.world.rng.uniform(0.3, 1.5))
        await self._got(key, invoked, ordinal, answer)

    async def get_at(self, key: bytes, ordinal: int) -> bool:
        """Read one key at this node; False: it was not answered."""
        invoked = self.world.now
        answer = await self._ask(ordinal, Get(key, False), 5.0)
        return await self._got(key, invoked, ordinal, answer)

    async def put_at(self, key: bytes, ordinal: int) -> bool:
        """Write one key at this node, longer than any inline value; False: not done."""
        token, invoked = self._token(), self.world.now
        length = max(self.world.inline_max + 1, 40)
        answer = await self._ask(ordinal, Write((Put(key, values.make(token, length)),)), 5.0)
        plan = Planned(key, Put(key, b""), Effect("put", token))
        if answer.good:
            self._acknowledged([plan], invoked, answer.result)
        else:
            self._note(f"put {key.decode()} {token} failed: {answer.error!r}")
            self._record(key, invoked, INFINITY, plan.effect)
        return answer.good

    async def _got(self, key: bytes, invoked: float, ordinal: int, answer: Answer) -> bool:
        error = answer.error
        if error is not None and error.code in IMPOSSIBLE:
            self.world.violation(f"node {ordinal} answers Get({key!r}) with {error!r}")
        if not answer.good:
            return False
        value = answer.result
        if isinstance(value, Value) and not isinstance(value.data, bytes):
            data = await self._stream(ordinal, value)
            if data is None:
                return False
            value = value._replace(data=data)
        self._saw(key, invoked, value)
        return True

    async def _stream(self, ordinal: int, value: Value) -> bytes | None:
        """A long value, piece by piece; None if it broke off."""
        world = self.world
        assert not isinstance(value.data, bytes)
        if ordinal >= len(world.hosts):
            return None
        host = world.hosts[ordinal]
        generation = host.generation
        parts: list[bytes] = []
        while True:
            if host.generation != generation:
                return None
            future: Future[bytes] = value.data.next()
            host.wake()
            part: Future[bytes | None] = Future()
            self._pipe(future, part)
            world.after(2.0, lambda part=part: self._resolve(part, None))  # type: ignore[misc]
            piece = await part
            if piece is None:
                return None
            if not piece:
                return b"".join(parts)
            parts.append(piece)

    def _pipe(self, future: Future[bytes], part: Future[bytes | None]) -> None:
        def done(source: Future[bytes]) -> None:
            error = source.error
            if isinstance(error, errors.DistKVError) and error.code in IMPOSSIBLE:
                self.world.violation(f"a stream ends with {error!r}")
            result = None if error is not None else source.result()
            self.world.after(0.0, lambda: self._resolve(part, result))

        future.add_callback(done)

    def _saw(self, key: bytes, invoked: float, value: object) -> None:
        state, version = None, 0
        if value is not None:
            assert isinstance(value, Value)
            state, version = self.state_of(key, value), value.meta.version
        self.world.checker.version_seen(key, version, state)
        self._known[key] = (version, state)
        self._note(f"read {key.decode()} = {state}")
        self._record(key, invoked, self.world.now, Effect("get", state))

    def state_of(self, key: bytes, value: Value) -> object:
        """A value as the history speaks of it."""
        assert isinstance(value.data, bytes)
        try:
            if key in COUNTERS:
                return int(value.data)
            if key in LISTS:
                return values.pieces_of(value.data)
            return values.token_of(value.data)
        except (values.Damaged, ValueError) as error:
            self.world.violation(f"key {key!r} version {value.meta.version}: {error}")

    async def _get_many(self) -> None:
        keys = (*REGISTERS[:2], COUNTERS[0])
        found = await self._read(GetMany(keys))
        if found is None:
            return
        assert isinstance(found[1], list)
        for key, value in zip(keys, found[1], strict=True):
            self._saw(key, found[0], value)

    async def _scan(self) -> None:
        """Which keys are there, and in which version; a version names a state if it is known."""
        found = await self._read(Scan(prefix=b"r"))
        if found is None:
            return
        present = {key: meta.version for key, meta in found[1].keys}  # type: ignore[attr-defined]
        for key in REGISTERS:
            version = present.get(key, 0)
            known = self.world.checker.state_of_version(key, version)
            if known is not None:
                self._record(key, found[0], self.world.now, Effect("get", known[0]))

    # -- writes

    def _plan(self) -> Planned:
        rng = self.world.rng
        kind = rng.random()
        if self.world.lists and rng.random() < 0.6:
            kind = 0.2 + 0.15 * kind
        if kind < 0.2:
            key = rng.choice(COUNTERS)
            return Planned(key, Increment(key, 1), Effect("increment"))
        if kind < 0.3:
            token = self._token()
            key = rng.choice(LISTS)
            return Planned(key, Append(key, values.piece(token)), Effect("append", token))
        if kind < 0.35:
            return self._planned_delete(rng.choice(LISTS))
        key = rng.choice(REGISTERS)
        if kind < 0.45:
            return self._planned_delete(key)
        return self._planned_put(key)

    def _planned_delete(self, key: bytes) -> Planned:
        condition, expected = self._condition(key)
        previous = self.world.rng.random() < 0.2
        return Planned(key, Delete(key, condition, previous), Effect("delete", expected=expected))

    def _planned_put(self, key: bytes) -> Planned:
        world, rng = self.world, self.world.rng
        token = self._token()
        condition, expected = self._condition(key)
        length = rng.choice(world.lengths)
        expiry = Expiry()
        if rng.random() < world.expiring:
            expiry = Expiry(after_ms=rng.choice((200, 1000, 3000)))
        put = Put(key, values.make(token, length), expiry, condition, rng.random() < 0.15)
        return Planned(key, put, Effect("put", token, expected))

    def _condition(self, key: bytes) -> tuple[Condition, object]:
        if self.world.rng.random() < 0.6 or key not in self._known or key in LISTS:
            return Condition(), ANY
        version, state = self._known[key]
        if version:
            return Condition(Must.HAVE_VERSION, version), state
        return Condition(Must.BE_ABSENT), None

    async def _change(self) -> None:
        await self._write([self._plan()])

    async def _change_two(self) -> None:
        """Two keys, all or none; without conditions, since those would couple the keys."""
        first, second = self.world.rng.sample(REGISTERS, 2)
        planned = []
        for key in (first, second):
            plan = self._planned_put(key)
            assert isinstance(plan.mutation, Put)
            mutation = plan.mutation._replace(condition=Condition())
            planned.append(Planned(key, mutation, plan.effect._replace(expected=ANY)))
        await self._write(planned)

    async def _write(self, planned: list[Planned]) -> None:
        world = self.world
        if not await self._opened():
            return
        mutations = tuple(plan.mutation for plan in planned)
        operation, retry = self._operation(mutations)
        invoked = world.now
        shown = " ".join(f"{p.effect.kind} {p.key.decode()} {p.effect.value}" for p in planned)
        self._note(f"asks {shown} as {operation.sequence}")
        patience = world.rng.uniform(0.5, 6.0)
        answer, maybe = await self._until_answered(operation, patience, retry)
        if operation.session == self.session:
            self._open.pop(operation.sequence, None)
        if answer.good:
            self._acknowledged(planned, invoked, answer.result)
        elif answer.error is not None and answer.error.code == "condition_failed":
            self._note(f"{shown}: the condition does not hold")
            self._record(planned[0].key, invoked, world.now, planned[0].effect._replace(met=False))
        elif maybe:
            self._note(f"{shown}: outcome unknown")
            for plan in planned:
                effect = plan.effect
                if effect.kind == "append":
                    effect = effect._replace(value=(effect.value, 0))
                self._record(plan.key, invoked, INFINITY, effect)
                self._may_expire(plan, invoked)
        else:
            self._note(f"{shown}: not done")

    def _operation(self, mutations: tuple[Mutation, ...]) -> tuple[Write, bool]:
        if self.direct or not self.session:
            return Write(mutations), False
        if self.world.rng.random() < 0.15:
            return Write(mutations, b"\x00K" + self.world.rng.randbytes(10), 1, 0), True
        self._sequence += 1
        self._open[self._sequence] = None
        low = min(self._open)
        return Write(mutations, self.session, self._sequence, low), True

    def _acknowledged(self, planned: list[Planned], invoked: float, result: object) -> None:
        world = self.world
        if not isinstance(result, list) or len(result) != len(planned):
            world.violation(f"{[p.mutation for p in planned]} was answered with {result!r}")
        for plan, one in zip(planned, result, strict=True):
            effect, version = self._effect(plan, one)
            if version:
                world.checker.version_seen(plan.key, version, plan.effect.value)
                self._known[plan.key] = (version, plan.effect.value)
            self._note(f"{effect.kind} {plan.key.decode()} {effect.value} is done")
            self._record(plan.key, invoked, world.now, effect)
            self._may_expire(plan, invoked)
            world.checker.acknowledged(plan.key, version)

    def _effect(self, plan: Planned, result: object) -> tuple[Effect, int]:
        """What the answer says happened; the version of the key if it says that."""
        kind, effect = plan.effect.kind, plan.effect
        if kind == "increment" and type(result) is int:
            return effect._replace(value=result), 0
        if kind == "append" and type(result) is int:
            return effect._replace(value=(effect.value, result // values.APPEND_BYTES)), 0
        if kind not in ("put", "delete") or not isinstance(result, Written):
            self.world.violation(f"{plan.mutation} was answered with {result!r}")
        effect = effect._replace(existed=result.existed)
        if plan.mutation.previous:  # type: ignore[union-attr]
            before = None
            if result.previous is not None:
                before = self.state_of(plan.key, result.previous)
            effect = effect._replace(before=before)
        return effect, result.version

    def _may_expire(self, plan: Planned, invoked: float) -> None:
        if isinstance(plan.mutation, Put) and plan.mutation.expiry.after_ms is not None:
            effect = Effect("expire", plan.effect.value)
            self._record(plan.key, invoked, INFINITY, effect)

    def _record(self, key: bytes, invoked: float, returned: float, effect: Effect) -> None:
        self.world.calls.append(Call(str(self.number), key, invoked, returned, effect))
