"""Stories of a simulated cluster, as text: a command, `----`, and what came of it.

Every `*.txt` beside this file is one story, in the manner of the data-driven tests of
etcd-io/raft. `python tests/scenarios/story.py --rewrite [FILE...]` writes the expected output
anew; read the difference before you keep it.

| command | what it does |
|---|---|
| cluster 3+2 [inline-max=N] [retain=N] [grace=S] [transport=real] | found a cluster; comes first |
| put NODE KEY BYTES [session=S/N] [version=V] [ttl=S] [later=NAME] | write; `later`: go on |
| append NODE KEY BYTES [session=S/N] [later=NAME], increment NODE KEY [session=S/N] | |
| get NODE KEY [took=yes], delete NODE KEY [later=NAME] | `took`: say how long it took |
| open NODE SESSION | open a gateway's session |
| finish NAME | wait for an operation begun with `later` |
| run SECONDS | let virtual time pass |
| crash NODE, start NODE, wipe NODE | `wipe`: crash, and the disk is lost |
| cut NODE,NODE | cut these off from all others; `heal` ends it |
| cut-one-way NODE NODE,NODE | nothing passes from the one to the others |
| reach NODE NODE,NODE | the one reaches these only |
| clock NODE SECONDS | its clock jumps |
| play-again NODE SECONDS | what it ever sent arrives again, for so long |
| slow-disk NODE SECONDS | every flush takes that long (0: normal again) |
| full-disk NODE, free-disk NODE | no batch can be written there; again it can |
| scarce-disk NODE | only its reserve is left |
| rot NODE KEY | one piece of this value becomes unreadable there |
| lead NODE | hand leadership over; `leader`: who leads; `round`: of its ballot |
| thinks NODE | whom this node takes for the leader |
| admit NODE | the owner gives the seat to the new directory |
| nodes | what each one says of itself |
| where KEY | code of the record, and who durably holds which shard |
| quiet | wait until everything is at rest: equal tables, no garbage, no shard missing |
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from distkv.kernel import Future
from distkv.machine.commands import change_replace
from distkv.operations import (
    Append,
    Condition,
    Delete,
    Expiry,
    Get,
    Increment,
    Must,
    Mutation,
    OpenSession,
    Operation,
    Put,
    Value,
    Write,
    Written,
)
from distkv.simulation import disk as raw
from distkv.simulation import values
from distkv.simulation.disk import Disk
from distkv.simulation.full_faults import CALM
from distkv.simulation.full_world import World
from distkv.simulation.hubs import HubNetwork
from distkv.simulation.member_host import FLUSH_TIME, Host
from distkv.simulation.settled import Settlement
from distkv.storage.base import Table

DEADLINE = 5.0
HERE = Path(__file__).parent


class Story:
    """One cluster and what is told of it."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._later: dict[str, Future[object]] = {}
        self._written: dict[str, int] = {}
        self._applied_at_stop: dict[int, int] = {}

    def tell(self, line: str) -> list[str]:
        """Carry out one command; the lines it says. Raises KeyError for an unknown one."""
        words = line.split()
        plain = [word for word in words[1:] if "=" not in word]
        named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        command: Callable[..., list[str]] = getattr(self, "do_" + words[0].replace("-", "_"))
        return command(*plain, **{key.replace("-", "_"): value for key, value in named.items()})

    @property
    def world(self) -> World:
        assert self._world is not None, "the first command of a story is `cluster`"
        return self._world

    def host(self, node: str) -> Host:
        return self.world.hosts[int(node)]

    # -- the cluster

    def do_cluster(
        self,
        shape: str,
        inline_max: str = "64",
        retain: str = "4096",
        grace: str = "3",
        transport: str = "model",
    ) -> list[str]:
        k, m = (int(number) for number in shape.split("+"))
        world = self._world = World(1, (k, m), CALM, transport=transport == "real")
        options = world.member_options
        core = dataclasses.replace(
            options.replica,
            tick=25,
            heartbeat=75,
            election_min=300,
            election_max=600,
            retain_slots=int(retain),
        )
        world.member_options = dataclasses.replace(
            options,
            replica=core,
            tick=0.025,
            stripe_bytes=4096,
            stream_above=1 << 20,
            grace=float(grace),
            restripe_after=1.0,
            settle_every=0.3,
        )
        world.wake = 0.0001
        world.inline_max = int(inline_max)
        world.owner_replaces = False
        world.begin()
        self._leader()
        f = world.checker.layouts.write_epoch.failures
        n = k + m
        return [f"{n} nodes, f = {f}: elections need {n - f}, a log entry {f + 1}"]

    def _leader(self) -> Host:
        found: list[Host] = []

        def led() -> bool:
            found[:] = [host for host in self.world.hosts if host.leads]
            return len(found) == 1

        assert self.world.run_until(led, 20.0), "nobody leads"
        return found[0]

    def do_leader(self) -> list[str]:
        return [f"node {self._leader().ordinal} leads"]

    def do_round(self) -> list[str]:
        leader = self._leader()
        return [f"node {leader.ordinal} leads, round {leader.machine.barrier.round}"]

    def do_thinks(self, node: str) -> list[str]:
        member = self.host(node).member
        assert member is not None
        assert member.seat is not None
        leader = member.seat.replica.leader
        return [
            f"node {node}: " + ("nobody leads" if leader is None else f"{leader.ordinal} leads")
        ]

    def do_lead(self, node: str) -> list[str]:
        leader = self._leader()
        if leader.ordinal != int(node):
            assert leader.member is not None
            assert leader.member.seat is not None
            assert leader.member.seat.replica.transfer(int(node))
            leader.wake()
            assert self.world.run_until(lambda: self.host(node).leads, 10.0)
        return self.do_leader()

    def do_run(self, seconds: str) -> list[str]:
        self.world.run_until(lambda: False, float(seconds))
        return ["ok"]

    def do_crash(self, node: str) -> list[str]:
        self.world.crash(self._stopping(node))
        return ["ok"]

    def _stopping(self, node: str) -> Host:
        host = self.host(node)
        if host.member is not None and host.member.seat is not None:
            self._applied_at_stop[host.ordinal] = host.machine.applied
        return host

    def do_start(self, node: str) -> list[str]:
        self.host(node).start()
        return ["ok"]

    def do_wipe(self, node: str) -> list[str]:
        self.world.lose_disk(self._stopping(node))
        return ["ok"]

    def do_cut(self, nodes: str) -> list[str]:
        inside = [int(node) for node in nodes.split(",")]
        for a in inside:
            for host in self.world.hosts:
                if host.ordinal not in inside:
                    self.world.network.cut.update([(a, host.ordinal), (host.ordinal, a)])
        return ["ok"]

    def do_cut_one_way(self, node: str, others: str) -> list[str]:
        self.world.network.cut.update((int(node), int(other)) for other in others.split(","))
        return ["ok"]

    def do_reach(self, node: str, others: str) -> list[str]:
        alone, reached = int(node), {int(other) for other in others.split(",")}
        for host in self.world.hosts:
            if host.ordinal != alone and host.ordinal not in reached:
                self.world.network.cut.update([(alone, host.ordinal), (host.ordinal, alone)])
        return ["ok"]

    def do_clock(self, node: str, seconds: str) -> list[str]:
        self.host(node).skew += float(seconds)
        return ["ok"]

    def do_play_again(self, node: str, seconds: str) -> list[str]:
        network = self.world.network
        assert isinstance(network, HubNetwork), "only where the production transport runs"
        network.datagrams.play_again_from(int(node), float(seconds))
        return ["ok"]

    def do_heal(self) -> list[str]:
        self.world.network.heal()
        return ["ok"]

    def do_slow_disk(self, node: str, seconds: str) -> list[str]:
        took = float(seconds)
        self.host(node).flush_time = (took, took) if took else FLUSH_TIME
        return ["ok"]

    def do_full_disk(self, node: str) -> list[str]:
        self.host(node).engine.full = True
        return ["ok"]

    def do_scarce_disk(self, node: str) -> list[str]:
        host = self.host(node)
        host.scarce = True
        host.wake()
        return ["ok"]

    def do_free_disk(self, node: str) -> list[str]:
        host = self.host(node)
        host.engine.full = host.scarce = False
        host.wake()
        return ["ok"]

    def do_rot(self, node: str, key: str) -> list[str]:
        coded = self._record(key)
        assert coded is not None
        self.world.rotten.append(int(node))
        assert self.host(node).engine.rot(Table.SHARD, coded.value_id + bytes(4))
        return ["ok"]

    def do_admit(self, node: str) -> list[str]:
        leader, joiner = self._leader(), self.host(node)
        assert leader.member is not None
        assert leader.member.seat is not None
        old = leader.machine.configuration.members[int(node)].incarnation
        change = change_replace("owner", int(node), old, joiner.incarnation)
        assert leader.member.seat.replica.propose_configuration(change)
        leader.wake()
        assert self.world.run_until(lambda: joiner.votes, 10.0)
        return [f"node {node} is a member again"]

    # -- operations

    def _say(self, future: Future[object], expected: str = "") -> str:
        error = future.error
        if error is not None:
            return f"{error.code}, applied: {error.applied}"  # type: ignore[attr-defined]
        result = future.result()
        if isinstance(result, list):
            result = result[0]
        if isinstance(result, Written):
            return f"version {result.version}" if result.version else "deleted"
        if isinstance(result, Value):
            return self._said(result, expected)
        return "absent" if result is None else str(result)

    def _said(self, value: Value, key: str) -> str:
        data = value.data
        assert isinstance(data, bytes)
        where = "coded" if value.meta.coded else "inline"
        if data[:1].isdigit() and b";" not in data:
            return f"{data.decode()}, version {value.meta.version}"
        tokens = values.pieces_of(data) if key.startswith("list") else (values.token_of(data),)
        shown = " + ".join(tokens)
        return f"{len(data)} bytes of {shown}, {where}, version {value.meta.version}"

    def _ask(
        self, node: str, operation: Operation, later: str, key: str = "", took: str = ""
    ) -> list[str]:
        host = self.host(node)
        if not host.alive:
            return ["connection refused"]
        future = host.execute(operation, self.world.now + DEADLINE)
        if future is None:
            return ["disk_full, applied: no"]
        if later:
            self._later[later] = future
            return ["under way"]
        began = self.world.now
        ended: list[float] = []
        future.add_callback(lambda _: ended.append(self.world.now))
        assert self.world.run_until(lambda: future.done, DEADLINE + 1.0), "no answer"
        said = self._say(future, key)
        if took:
            return [f"{said}, after {ended[0] - began:.1f} s"]
        return [said + (" (at once)" if future.error and ended[0] - began < 0.2 else "")]

    def do_finish(self, name: str) -> list[str]:
        future = self._later.pop(name)
        assert self.world.run_until(lambda: future.done, DEADLINE + 1.0), "no answer"
        return [self._say(future)]

    def _write(self, mutation: Mutation, session: str) -> Write:
        if not session:
            return Write((mutation,))
        name, sequence = session.split("/")
        return Write((mutation,), name.encode().ljust(12, b"."), int(sequence), int(sequence))

    def do_open(self, node: str, session: str) -> list[str]:
        return self._ask(node, OpenSession(session.encode().ljust(12, b".")), "")

    def do_put(
        self,
        node: str,
        key: str,
        size: str,
        session: str = "",
        version: str = "",
        ttl: str = "",
        later: str = "",
    ) -> list[str]:
        number = self._written[key] = self._written.get(key, 0) + 1
        condition = Condition(Must.HAVE_VERSION, int(version)) if version else Condition()
        expiry = Expiry(after_ms=int(float(ttl) * 1000)) if ttl else Expiry()
        put = Put(key.encode(), values.make(f"{key}-{number}", int(size)), expiry, condition)
        return self._ask(node, self._write(put, session), later)

    def do_append(
        self, node: str, key: str, token: str, session: str = "", later: str = ""
    ) -> list[str]:
        append = Append(key.encode(), values.piece(token))
        return self._ask(node, self._write(append, session), later)

    def do_increment(self, node: str, key: str, session: str = "", times: str = "1") -> list[str]:
        said = []
        for _ in range(int(times)):
            said = self._ask(node, self._write(Increment(key.encode(), 1), session), "")
        return said

    def do_delete(self, node: str, key: str, later: str = "") -> list[str]:
        return self._ask(node, Write((Delete(key.encode()),)), later)

    def do_get(self, node: str, key: str, took: str = "", later: str = "") -> list[str]:
        return self._ask(node, Get(key.encode()), later, key, took)

    # -- what is there

    def _record(self, key: str) -> raw.Coded | None:
        newest = max(self.world.hosts, key=lambda host: Disk(host.engine, False).applied)
        row = newest.engine.get(Table.RECORD, key.encode())
        return None if row is None else raw.record(key.encode(), row)

    def do_where(self, key: str) -> list[str]:
        coded = self._record(key)
        if coded is None:
            return ["not a coded value"]
        lines = [
            f"version {coded.version}: any {coded.data_shards} of {coded.size} shards give it back"
        ]
        for host in self.world.hosts:
            shard = Disk(host.engine).shard(coded.value_id)
            held = "no shard" if shard is None else f"shard {shard[-1][0]}"
            lines.append(f"node {host.ordinal}: {held}")
        return lines

    def do_nodes(self) -> list[str]:
        return [f"node {host.ordinal}: {self._state(host)}" for host in self.world.hosts]

    def _state(self, host: Host) -> str:
        if not host.alive:
            return "down"
        assert host.member is not None
        if host.member.seat is None:
            return "waits to be told of the cluster"
        status = host.member.status()
        said = f"{status['role']}, {status['state']}"
        stopped = self._applied_at_stop.get(host.ordinal)
        first = host.member.seat.replica.first
        if stopped is not None and first > stopped + 1:
            said += ", caught up by a snapshot"
        return said

    def do_quiet(self) -> list[str]:
        rest = Settlement(self.world)
        if not self.world.run_until(rest.reached, 60.0):
            return [f"not at rest: {rest.why}"]
        return ["at rest"]


def play(text: str) -> str:
    """The same story with what really comes of every command."""
    story = Story()
    told: list[str] = []
    expected = False
    for line in text.splitlines():
        if expected:
            expected = bool(line)
        elif line == "----":
            told += ["----", *story.tell(told[-1]), ""]
            expected = True
        else:
            told.append(line)
    while told and not told[-1]:
        told.pop()
    return "\n".join(told) + "\n"


def stories() -> list[Path]:
    """All of them."""
    return sorted(HERE.glob("*.txt"))


def main(arguments: list[str]) -> int:
    """`--rewrite [FILE...]`: bring the expected output up to date."""
    rewrite = "--rewrite" in arguments
    files = [Path(argument) for argument in arguments if argument != "--rewrite"] or stories()
    different = 0
    for path in files:
        text = path.read_text()
        played = play(text)
        if played != text:
            different += 1
            print(f"{path.name}: {'rewritten' if rewrite else 'differs'}")
            if rewrite:
                path.write_text(played)
    return 0 if rewrite else int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
