"""NetworkPolicy is enforced on real packets, also those of flows that were there before it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from testbed.harness import Space
from testbed.manifests import PORT, Manifest, headless, pod, policy, server

pytestmark = pytest.mark.long
"""The test bed itself: what stands on it is tested each time."""

LIMIT_MS = 2000


def changes(space: Space, name: str) -> list[tuple[str, int, int]]:
    """What a watching pod has printed: up or down, at which millisecond, after how many sent."""
    found = []
    for line in space.lines(name):
        word, moment, sent = line.split()
        found.append((word, int(moment), int(sent.removeprefix("sent="))))
    return found


def state(space: Space, name: str) -> str:
    seen = changes(space, name)
    return seen[-1][0] if seen else "down"


def await_state(space: Space, name: str, wanted: str) -> int:
    """The millisecond at which the flow changed to what is wanted."""
    space.cluster.wait(f"{name} to be {wanted}", lambda: state(space, name) == wanted, 20)
    return changes(space, name)[-1][1]


def watcher(name: str, target: str, node: str, *options: str, **labels: str) -> Manifest:
    return pod(name, ("probe", "watch", *options, f"{target}:{PORT}"), node, **labels)


def now_ms() -> int:
    return int(time.time() * 1000)


CUTS: dict[str, Manifest] = {
    "ingress of the server": policy("cut", "server", ingress=[]),
    "egress of the client": policy("cut", "client", egress=[]),
}


@pytest.mark.parametrize("node", ["node1", "node2"], ids=["same node", "other node"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_an_established_udp_flow_is_cut_and_heals(space: Space, cut: Manifest, node: str) -> None:
    space.apply(server("server", "node1"))
    space.ready("pod")
    space.apply(watcher("client", space.address("server"), node))
    await_state(space, "client", "up")
    asked = now_ms()
    space.apply(cut)
    assert await_state(space, "client", "down") - asked < LIMIT_MS
    asked = now_ms()
    space.kubectl("delete", "networkpolicy", "cut")
    assert await_state(space, "client", "up") - asked < LIMIT_MS


def test_a_flow_that_both_ends_send_on_is_cut_in_both_directions(space: Space) -> None:
    space.apply(pod("idle-a", node="node1"), pod("idle-b", node="node2"))
    space.ready("pod")
    # Each end needs the other's address beforehand, so the flow runs inside pods that are there.
    ends = {"idle-a": space.address("idle-b"), "idle-b": space.address("idle-a")}
    for name, other in ends.items():
        script = f"probe watch -bind :{PORT} {other}:{PORT} > /tmp/changes 2>&1 &"
        space.run(name, "sh", "-c", script)

    def last(name: str) -> list[str]:
        return space.run(name, "cat", "/tmp/changes").splitlines()[-1].split()

    def all_are(word: str) -> bool:
        return all(last(name)[0] == word for name in ends)

    space.cluster.wait("both ends to hear each other", lambda: all_are("up"))
    asked = now_ms()
    space.apply(policy("cut", "idle-b", ingress=[], egress=[]))
    space.cluster.wait("both ends to hear nothing", lambda: all_are("down"))
    assert max(int(last(name)[1]) for name in ends) - asked < LIMIT_MS
    asked = now_ms()
    space.kubectl("delete", "networkpolicy", "cut")
    space.cluster.wait("both ends to hear each other again", lambda: all_are("up"))
    assert max(int(last(name)[1]) for name in ends) - asked < LIMIT_MS


def test_a_policy_holds_from_a_pods_first_packet(space: Space) -> None:
    """Ten pods start under a standing policy: the five it forbids never get one answer, and the
    five it allows send one datagram, which is not lost."""
    space.apply(
        server("server", "node1"),
        policy("only-friends", "server", ingress=[from_pods(role="friend")]),
    )
    space.ready("pod")
    address = space.address("server")
    for number in range(5):
        node = f"node{number + 2}"
        once = ("sh", "-c", f"probe ask {address}:{PORT}; sleep infinity")
        space.apply(pod(f"friend-{number}", once, node, role="friend"))
        space.apply(watcher(f"stranger-{number}", address, node, role="stranger"))
    space.ready("pod")
    for number in range(5):
        name = f"friend-{number}"
        space.cluster.wait("its answer", lambda name=name: bool(space.lines(name)), 30)  # type: ignore[misc]
        assert list(space.lines(name)) == ["server"]
    for number in range(5):
        assert changes(space, f"stranger-{number}") == []


def test_a_new_server_is_closed_from_its_first_packet(space: Space) -> None:
    """The client asks an address before the pod that gets it exists."""
    space.apply(policy("closed", "server", ingress=[]), pod("client", node="node1"))
    space.ready("pod")
    # Pod addresses of a node are given out in turn, so the next ones can be asked beforehand.
    base, _, _ = space.address("client").rpartition(".")
    last = int(space.address("client").rpartition(".")[2])
    for offset in range(1, 6):
        target = f"{base}.{last + offset}:{PORT}"
        script = f"probe watch {target} > /tmp/{offset} 2>&1 &"
        space.run("client", "sh", "-c", script)
    space.apply(server("server", "node1"), server("open", "node1"))
    space.ready("pod")

    def answered() -> set[int]:
        files = space.run("client", "sh", "-c", "grep -l up /tmp/[1-5] || true").split()
        return {int(path.rpartition("/")[2]) for path in files}

    reached = int(space.address("open").rpartition(".")[2]) - last
    closed = int(space.address("server").rpartition(".")[2]) - last
    assert {reached, closed} <= set(range(1, 6))
    space.cluster.wait("the open server to answer", lambda: reached in answered())
    assert closed not in answered()


def from_pods(**labels: str) -> dict[str, Any]:
    return {"from": [{"podSelector": {"matchLabels": labels}}]}


def test_rules_say_who_may_reach_what(space: Space) -> None:
    """Selectors, namespaces, address blocks and ports, each against pods that do not match."""
    with space.cluster.space(prefix="other") as other:
        space.apply(server("server", "node1"))
        space.apply(pod("friend", node="node2", role="friend"), pod("stranger", node="node3"))
        other.apply(pod("foreigner", node="node4", role="friend"))
        space.ready("pod")
        other.ready("pod")
        address = space.address("server")
        stranger = space.address("stranger")
        everyone = {"friend": space, "stranger": space, "foreigner": other}

        def reaching() -> set[str]:
            probe = ("probe", "connect", f"{address}:{PORT}")
            return {name for name, where in everyone.items() if where.attempt(name, *probe)}

        def expect(wanted: set[str], **rules: Any) -> None:
            space.apply(policy("rules", "server", **rules))
            space.cluster.wait(f"{rules} to admit {wanted}", lambda: reaching() == wanted, 20)

        home = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other.name}}}
        block = {"cidr": "10.244.0.0/16", "except": [f"{stranger}/32"]}
        tcp = {"protocol": "TCP", "port": PORT}
        assert reaching() == set(everyone)
        expect({"friend"}, ingress=[from_pods(role="friend")])
        expect({"foreigner"}, ingress=[{"from": [home]}])
        expect({"friend", "foreigner"}, ingress=[{"from": [{"ipBlock": block}]}])
        expect(set(everyone), ingress=[{"ports": [tcp]}])
        expect(set(), ingress=[{"ports": [{"protocol": "TCP", "port": PORT + 1}]}])
        expect(set(everyone), ingress=[{"ports": [{"port": PORT - 5, "endPort": PORT + 5}]}])
        expect(set(), ingress=[{"ports": [{"protocol": "UDP", "port": PORT}]}])


def test_egress_is_judged_behind_a_service(space: Space) -> None:
    """What a client may reach is a matter of the real destination, whatever address it asks for."""
    service = headless("server")
    del service["spec"]["clusterIP"]
    space.apply(service, server("server", "node1"), server("elsewhere", "node2"))
    space.apply(pod("client", node="node3"))
    space.ready("pod")
    targets = {
        "service": f"server.{space.name}:{PORT}",
        "server": f"{space.address('server')}:{PORT}",
        "elsewhere": f"{space.address('elsewhere')}:{PORT}",
    }

    def reached() -> set[str]:
        return {n for n, t in targets.items() if space.attempt("client", "probe", "connect", t)}

    space.cluster.wait("all to be reached", lambda: reached() == set(targets))
    kube_system = {"kubernetes.io/metadata.name": "kube-system"}
    dns = {
        "to": [
            {
                "namespaceSelector": {"matchLabels": kube_system},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}],
    }
    only_server = {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}]}
    space.apply(policy("rules", "client", egress=[dns, only_server]))
    space.cluster.wait("the server alone", lambda: reached() == {"service", "server"}, 20)
    space.apply(policy("rules", "client", egress=[only_server]))
    space.cluster.wait("names to be out of reach", lambda: reached() == {"server"}, 60)
