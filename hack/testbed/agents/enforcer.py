"""The network policy agent: one process in the hub for all nodes.

    python -m testbed.agents.enforcer SERVER PKI NODES-FILE SOCKET

It mirrors pods, namespaces and policies, compiles them, and replaces the table of each node whose
rules changed. Over SOCKET the CNI chain announces each new pod before its containers start, and is
answered when the rules with that pod are in force on every node.
"""

from __future__ import annotations

import http.client
import json
import socketserver
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed.agents.api import Api, ApiError, Credentials, Mirror, Object
from testbed.agents.nodes import NodeFile
from testbed.agents.policy import Verdicts, compile_policies, read_pod
from testbed.agents.ruleset import render
from testbed.namespaces.network import node_number, pod_range
from testbed.run import run

POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
GATHER = 0.005  # a change often comes as several events
RECHECK = 1.0  # a node may have been started again with an empty table
ANNOUNCE_PATIENCE = 15.0


@dataclass(frozen=True)
class Change:
    """What is loaded into one node: by which process it is found, the script, and its meaning."""

    pid: int
    text: str
    verdicts: Verdicts


class Enforcer:
    """Holds what is wanted, what is in force on each node, and who waits for it."""

    def __init__(self, api: Api, nodes: NodeFile) -> None:
        self._api, self._nodes = api, nodes
        self._turn = threading.Condition()
        self._wanted = 0  # counts changes
        self._in_force = -1  # the count that the nodes have been brought up to
        self._owners: dict[str, str] = {}  # address -> uid of the pod that last announced it
        self._done: dict[str, Change] = {}
        self._pods = Mirror(api, "/api/v1/pods", self.wake)
        self._namespaces = Mirror(api, "/api/v1/namespaces", self.wake)
        self._policies = Mirror(api, POLICIES, self.wake)
        self._workers = ThreadPoolExecutor(8)

    def wake(self) -> None:
        with self._turn:
            self._wanted += 1
            self._turn.notify_all()

    def run(self) -> None:
        for mirror in (self._pods, self._namespaces, self._policies):
            mirror.synced.wait()
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._wanted > self._in_force, RECHECK)
            time.sleep(GATHER)
            with self._turn:
                count = self._wanted
            if self._apply():
                with self._turn:
                    self._in_force = count
                    self._turn.notify_all()

    def admit(self, namespace: str, name: str, ip: str) -> None:
        """Returns when rules that know this pod at this address are in force everywhere."""
        limit = time.monotonic() + ANNOUNCE_PATIENCE
        pod = self._api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
        uid = str(pod["metadata"]["uid"])
        policies = self._api.request(
            "GET", f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
        )["items"]
        with self._turn:
            fresh = self._turn.wait_for(
                lambda: self._has_seen(uid, policies), limit - time.monotonic()
            )
            if not fresh:
                raise TimeoutError("the watch is behind the API server")
            self._owners = {a: owner for a, owner in self._owners.items() if owner != uid}
            self._owners[ip] = uid
            self._wanted += 1
            count = self._wanted
            self._turn.notify_all()
            if not self._turn.wait_for(lambda: self._in_force >= count, limit - time.monotonic()):
                raise TimeoutError("the rules could not be put in force on every node")

    def _has_seen(self, uid: str, policies: list[Object]) -> bool:
        """Watches come late: a policy that is older than the pod may still be on its way."""
        seen = {_version(policy) for policy in self._policies.all()}
        wanted = {_version(policy) for policy in policies}
        return self._pods.by_uid(uid) is not None and wanted <= seen

    def _compile(self) -> dict[str, Verdicts]:
        items = {item["metadata"]["uid"]: item for item in self._pods.all()}
        with self._turn:
            self._owners = {ip: uid for ip, uid in self._owners.items() if uid in items}
            owners = dict(self._owners)
        addresses = {uid: ip for ip, uid in owners.items()}
        pods = [read_pod(item, addresses.get(uid)) for uid, item in items.items()]
        labels = {
            space["metadata"]["name"]: space["metadata"].get("labels") or {}
            for space in self._namespaces.all()
        }
        # An address that was announced since belongs to no pod whose status still names it.
        current = [
            pod
            for uid, pod in zip(items, pods, strict=True)
            if pod and owners.get(pod.ip, uid) == uid
        ]
        return compile_policies(current, labels, self._policies.all())

    def _apply(self) -> bool:
        """Brings every node up to date; false if one could not be."""
        wanted = self._compile()
        changed: dict[str, Change] = {}
        for node, pid in self._nodes.read().items():
            verdicts = wanted.get(node, Verdicts())
            text = render(verdicts, pod_range(node_number(node)))
            before = self._done.get(node)
            if before is None or (before.pid, before.text) != (pid, text):
                changed[node] = Change(pid, text, verdicts)
        loaded = dict(zip(changed, self._workers.map(_load, changed.values()), strict=True))
        # Flows are forgotten only now that no node lets anything wrong pass any more: earlier, a
        # packet still in flight could establish the flow again.
        for node, change in changed.items():
            if loaded[node]:
                _forget_flows(change, self._done.get(node))
                self._done[node] = change
        alive = self._nodes.read()
        return all(loaded[node] or alive.get(node) != changed[node].pid for node in changed)


def _version(item: Object) -> tuple[str, str]:
    return item["metadata"]["uid"], item["metadata"]["resourceVersion"]


def _inside(pid: int) -> list[str]:
    return ["nsenter", "-t", str(pid), "-n"]


def _load(change: Change) -> bool:
    done = run([*_inside(change.pid), "nft", "-f", "-"], stdin=change.text, check=False)
    if done.returncode != 0:
        print(f"nft failed: {done.stderr[:2000]}\nwith this script:\n{change.text}", flush=True)
    return done.returncode == 0


def _forget_flows(now: Change, before: Change | None) -> None:
    """Makes the kernel forget the UDP flows of pods whose rules changed.

    Both ends of a UDP exchange may send of their own accord. Which of them "began" the flow must
    be decided anew under the new rules, so that the direction which is still allowed goes on.
    """
    if before is None or before.pid != now.pid:
        return
    for ip in sorted(before.verdicts.known & now.verdicts.known):
        if before.verdicts.of(ip) != now.verdicts.of(ip):
            for side in ("--orig-src", "--reply-src"):  # exit 1 means that there was no such flow
                run([*_inside(now.pid), "conntrack", "-D", "-p", "udp", side, ip], check=False)


class _Announcement(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Desk)
        try:
            request = json.loads(self.rfile.readline())
            self.server.enforcer.admit(request["namespace"], request["name"], request["ip"])
            answer = "ok"
        except (OSError, ValueError, KeyError, ApiError, http.client.HTTPException) as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
            print(f"a pod was not admitted: {answer}", flush=True)
        self.wfile.write(f"{answer}\n".encode())


class _Desk(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, enforcer: Enforcer) -> None:
        path.unlink(missing_ok=True)
        self.enforcer = enforcer
        super().__init__(str(path), _Announcement)


def main(server: str, pki: str, nodes: str, socket: str) -> None:
    enforcer = Enforcer(Api(Credentials(server, Path(pki), "admin")), NodeFile(Path(nodes)))
    desk = _Desk(Path(socket), enforcer)
    threading.Thread(target=desk.serve_forever, name="announcements", daemon=True).start()
    enforcer.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
