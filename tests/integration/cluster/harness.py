"""A cluster of real `distkv node` processes: founded, killed, frozen, wiped, looked into.

Every process gets PR_SET_PDEATHSIG, so none outlives the test run; clusters are to be started
from the main thread only (the signal goes with the thread that made the process).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import redis

ROOT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
TOKEN = "token-of-the-tests"
OWNER = "owner-of-the-tests"
WAIT_SECONDS = 90.0
POLL_SECONDS = 0.03
DOORS = ("resp", "http", "admin", "link", "peers")
PORT_BLOCK = 100
PORTS_FROM, PORTS_TO = 10_000, 32_000
"""Below what the kernel gives to clients: a port of a node that is down stays free."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first truthy answer of `condition`; AssertionError naming `what` if there is none."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(POLL_SECONDS)


def _bindable(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Neighbouring ports that TCP and UDP may take."""
    assert count <= PORT_BLOCK
    for _ in range(1000):
        base = random.SystemRandom().randrange(PORTS_FROM, PORTS_TO, PORT_BLOCK)
        ports = list(range(base, base + count))
        if all(_bindable(k, p) for p in ports for k in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            return ports
    raise AssertionError("no free ports")


class Answer(NamedTuple):
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Node:
    """One process and its directory."""

    def __init__(self, cluster: Cluster, ordinal: int, ports: dict[str, int]) -> None:
        self.ordinal = ordinal
        self.ports = ports
        self.home = cluster.path / f"node-{ordinal}"
        self.data = self.home / "data"
        self.log = self.home / "log"
        self.config: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.home.mkdir(parents=True)

    # -- the process

    def start(self) -> None:
        """Start it; see `Cluster.start` to wait until it answers."""
        assert not self.running
        path = self.home / "config.json"
        path.write_text(json.dumps(self.config))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DISTKV_")}
        environment["PYTHONPATH"] = str(ROOT / "node")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "distkv", "node", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        assert self.running
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9; returns when it is dead."""
        self.send_signal(signal.SIGKILL)
        self.exit_code()

    def exit_code(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for the end of the process."""
        assert self.process is not None
        return self.process.wait(seconds)

    def resident_bytes(self) -> int:
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # -- its doors

    def redis(self, seconds: float = 40.0, **options: Any) -> redis.Redis:
        """A client of this node alone that retries nothing by itself."""
        return redis.Redis(
            HOST,
            self.ports["resp"],
            socket_timeout=seconds,
            retry=None,
            **options,
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        door: str = "http",
        seconds: float = 40.0,
    ) -> Answer:
        """One request on a connection of its own. Raises OSError, HTTPException."""
        connection = HTTPConnection(HOST, self.ports[door], timeout=seconds)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def admin(self, method: str, path: str, body: object = None) -> Answer:
        raw = None if body is None else json.dumps(body).encode()
        return self.request(method, path, raw, {"X-DistKV-Token": TOKEN}, door="admin")

    def status(self) -> dict[str, Any] | None:
        """/v1/status; None if nobody answers."""
        try:
            answer = self.request("GET", "/v1/status", seconds=5.0)
        except (OSError, HTTPException):
            return None
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json
        return found


class Cluster:
    """`overrides`: sections of the configuration, such as {"consensus": {"retain_slots": 100}};
    `per_node` the same by ordinal. Use as a context manager."""

    def __init__(
        self,
        data_shards: int = 3,
        parity_shards: int = 2,
        overrides: dict[str, dict[str, Any]] | None = None,
        per_node: dict[int, dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="distkv-cluster-"))
        self.data_shards, self.parity_shards = data_shards, parity_shards
        self.size = data_shards + parity_shards
        self.id = secrets.token_hex(16)
        self.key = self.path / "cluster-key"
        self.key.write_text(secrets.token_hex(32))
        (self.path / "token").write_text(TOKEN)
        ports = free_ports(self.size * len(DOORS))
        self.nodes: list[Node] = []
        for ordinal in range(self.size):
            own = ports[ordinal * len(DOORS) : (ordinal + 1) * len(DOORS)]
            self.nodes.append(Node(self, ordinal, dict(zip(DOORS, own, strict=True))))
        for node in self.nodes:
            node.config = self._config(node, overrides or {}, (per_node or {}).get(node.ordinal))

    def _config(
        self,
        node: Node,
        overrides: dict[str, dict[str, Any]],
        own: dict[str, dict[str, Any]] | None,
    ) -> dict[str, Any]:
        config: dict[str, Any] = {
            "node": {"ordinal": node.ordinal},
            "cluster": {"id": self.id},
            "listen": {door: f"{HOST}:{port}" for door, port in node.ports.items()},
            "peers": {"addresses": [f"{HOST}:{n.ports['peers']}" for n in self.nodes]},
            "keys": {"files": [str(self.key)]},
            "admin": {"token_file": str(self.path / "token")},
            "storage": {"directory": str(node.data)},
        }
        for section, fields in (*overrides.items(), *(own or {}).items()):
            config[section] = config.get(section, {}) | fields
        return config

    def __enter__(self) -> Cluster:
        try:
            self.start()
            self.found()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.running:
                with contextlib.suppress(ProcessLookupError):
                    node.send_signal(signal.SIGKILL)
                node.exit_code()
        shutil.rmtree(self.path, ignore_errors=True)

    # -- processes

    def start(self, *ordinals: int) -> None:
        """Start these (all without any) and wait until they answer."""
        nodes = [self.nodes[o] for o in ordinals] if ordinals else self.nodes
        for node in nodes:
            node.start()
        for node in nodes:
            self._until_answering(node)

    def _until_answering(self, node: Node) -> None:
        def answers() -> bool:
            assert node.running, f"node {node.ordinal} ended: {self.logs()}"
            if node.status() is None:
                return False
            with contextlib.suppress(OSError, HTTPException):
                node.admin("GET", "/v1/admin/identity")  # this door opens last
                return True
            return False

        wait_until(answers, f"node {node.ordinal} to answer")

    def kill(self, *ordinals: int) -> None:
        """kill -9 all of these at once."""
        for ordinal in ordinals:
            self.nodes[ordinal].send_signal(signal.SIGKILL)
        for ordinal in ordinals:
            self.nodes[ordinal].exit_code()

    def wipe(self, ordinal: int) -> None:
        """The directory of a dead node is gone."""
        assert not self.nodes[ordinal].running
        shutil.rmtree(self.nodes[ordinal].data)

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.running]

    # -- the owner's part

    def incarnation(self, ordinal: int) -> int:
        return int(self.nodes[ordinal].admin("GET", "/v1/admin/identity").json["incarnation"])

    def founders(self) -> list[list[int]]:
        return [[ordinal, self.incarnation(ordinal)] for ordinal in range(self.size)]

    def found_request(self, founders: list[list[int]]) -> dict[str, Any]:
        return {
            "cluster_id": self.id,
            "owner": OWNER,
            "layout": {"data_shards": self.data_shards, "parity_shards": self.parity_shards},
            "members": founders,
        }

    def found(self) -> None:
        """What an owner does once; returns when all nodes serve."""
        answer = self.nodes[0].admin("POST", "/v1/admin/found", self.found_request(self.founders()))
        assert answer.status == 200, answer
        self.form()
        self.wait_serving()

    def form(self) -> None:
        """`formed` into the log, through any node."""
        request = {"cluster_id": self.id, "owner": OWNER}

        def formed() -> bool:
            for node in self.running:
                status = node.status()
                if status is not None and status["formed"]:
                    return True
                with contextlib.suppress(OSError, HTTPException):
                    node.admin("POST", "/v1/admin/formed", request)
            return False

        wait_until(formed, "the cluster to be formed")

    def replace(self, ordinal: int, old: int) -> int:
        """Admit whoever runs at `ordinal` now in place of `old`; its incarnation."""
        new = self.incarnation(ordinal)
        request = {"owner": OWNER, "ordinal": ordinal, "old": old, "new": new}

        def replaced() -> bool:
            leader = self.leader_or_none()
            if leader is None:
                return False
            answer = self.nodes[leader].admin("POST", "/v1/admin/replace", request)
            assert answer.status in (200, 409), answer
            return answer.status == 200 and bool(answer.json["replaced"])

        wait_until(replaced, f"node {ordinal} to be admitted")
        return new

    # -- looking

    def statuses(self) -> dict[int, dict[str, Any]]:
        """Of the running nodes that answer."""
        found = {node.ordinal: node.status() for node in self.running}
        return {ordinal: status for ordinal, status in found.items() if status is not None}

    def leader_or_none(self) -> int | None:
        """Who says it leads, and nobody says so under a higher ballot."""
        leaders = [
            (status["ballot"], ordinal)
            for ordinal, status in self.statuses().items()
            if status["role"] == "leader"
        ]
        return max(leaders)[1] if leaders else None

    def leader(self) -> int:
        """Waits for one."""
        found = wait_until(
            lambda: [o for o in [self.leader_or_none()] if o is not None], "a leader"
        )
        return int(found[0])

    def followers(self) -> list[int]:
        """Running nodes that do not lead."""
        leader = self.leader()
        return [node.ordinal for node in self.running if node.ordinal != leader]

    def wait_serving(self, *ordinals: int) -> None:
        """Until these (all running ones without any) serve under one leader."""

        def serving() -> bool:
            wanted = ordinals or tuple(node.ordinal for node in self.running)
            statuses = self.statuses()
            return all(o in statuses and statuses[o]["serving"] for o in wanted)

        wait_until(serving, f"nodes {ordinals or 'all'} to serve")

    def wait_whole(self) -> None:
        """Until all running nodes applied the same and no node misses a shard."""

        def whole() -> bool:
            statuses = self.statuses()
            if len(statuses) < len(self.running):
                return False
            applied = {status.get("applied") for status in statuses.values()}
            missing = [status.get("shards_missing") for status in statuses.values()]
            pending = [status.get("pending_commands") for status in statuses.values()]
            return len(applied) == 1 and set(missing) == {0} and set(pending) == {0}

        wait_until(whole, "all shards to be where they belong")

    def wait_coded(self) -> None:
        """Until no value has fewer data shards than the layout wants: one slow moment is enough
        for that, and values younger than ten seconds are left so."""
        self.wait_whole()
        wait_until(
            lambda: [s["under_coded"] for s in self.statuses().values()] == [0] * len(self.running),
            "all values to be coded as the layout wants",
        )

    def logs(self, lines: int = 60) -> str:
        """The last lines of every node."""
        parts = []
        for node in self.nodes:
            tail = node.log_text().splitlines()[-lines:]
            ended = "" if node.process is None else f", exit code {node.process.poll()}"
            parts.append(f"--- node {node.ordinal}{ended}\n" + "\n".join(tail))
        return "\n".join(parts)
