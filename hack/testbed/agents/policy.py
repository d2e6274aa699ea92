"""NetworkPolicy, from objects to what each node has to do about each of its pods. Pure.

A rule is a list of match conditions in nft's language; a packet that meets one rule of the pod's
list may pass. The flow decides, not the packet: its first source (ct original saddr), its real
destination behind any Service (ct reply saddr), its real port (ct reply proto-src). So a reply is
judged as the flow that it belongs to, and a flow is judged anew with each of its packets: nothing
is exempt for being established.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from testbed.agents.selectors import Labels, matches

Object = dict[str, Any]
Direction = Literal["ingress", "egress"]
SOURCE, DESTINATION = "ct original ip saddr", "ct reply ip saddr"
PORT = "ct reply proto-src"


@dataclass(frozen=True)
class Pod:
    """What policy needs to know of a pod that has an address."""

    namespace: str
    node: str
    ip: str
    labels: Labels
    ports: tuple[tuple[str, str, int], ...] = ()  # name, protocol, number


@dataclass(frozen=True)
class Verdicts:
    """One node's pods. A pod without an entry for a direction is free in that direction."""

    known: frozenset[str] = frozenset()
    ingress: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    egress: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, ip: str) -> tuple[object, object]:
        return self.ingress.get(ip), self.egress.get(ip)


def read_pod(item: Object, announced_ip: str | None) -> Pod | None:
    """A pod from the API, or None if it has no address of its own (yet, or any more).

    The address that the CNI chain announced is newer than the one in the status.
    """
    status, spec = item.get("status", {}), item["spec"]
    ip = announced_ip or status.get("podIP")
    if not ip or not spec.get("nodeName") or spec.get("hostNetwork"):
        return None
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    containers = spec.get("containers", []) + spec.get("initContainers", [])
    ports = tuple(
        (port["name"], port.get("protocol", "TCP"), port["containerPort"])
        for container in containers
        for port in container.get("ports") or []
        if "name" in port
    )
    meta = item["metadata"]
    return Pod(meta["namespace"], spec["nodeName"], ip, meta.get("labels") or {}, ports)


def compile_policies(
    pods: Sequence[Pod], namespaces: Mapping[str, Labels], policies: Sequence[Object]
) -> dict[str, Verdicts]:
    """Node name -> verdicts. The same objects give the same result whatever order they come in."""
    world = _World(pods, namespaces)
    ordered = sorted(policies, key=lambda p: (p["metadata"]["namespace"], p["metadata"]["name"]))
    result: dict[str, Verdicts] = {}
    for node in sorted({pod.node for pod in pods}):
        local = [pod for pod in pods if pod.node == node]
        result[node] = Verdicts(
            frozenset(pod.ip for pod in local),
            world.rules_of_all(local, ordered, "ingress"),
            world.rules_of_all(local, ordered, "egress"),
        )
    return result


def directions(policy: Object) -> set[str]:
    """policyTypes, or what the API server would have made of their absence."""
    given = policy["spec"].get("policyTypes")
    if given:
        return {str(each).lower() for each in given}
    return {"ingress", "egress"} if "egress" in policy["spec"] else {"ingress"}


class _World:
    def __init__(self, pods: Sequence[Pod], namespaces: Mapping[str, Labels]) -> None:
        self._pods = pods
        self._namespaces = namespaces

    def rules_of_all(
        self, local: Sequence[Pod], policies: Sequence[Object], direction: Direction
    ) -> dict[str, tuple[str, ...]]:
        found = {}
        for pod in local:
            rules = self._rules(pod, policies, direction)
            if rules is not None:
                found[pod.ip] = rules
        return found

    def _rules(
        self, pod: Pod, policies: Sequence[Object], direction: Direction
    ) -> tuple[str, ...] | None:
        selecting = [
            policy
            for policy in policies
            if policy["metadata"]["namespace"] == pod.namespace
            and direction in directions(policy)
            and matches(policy["spec"].get("podSelector") or {}, pod.labels)
        ]
        if not selecting:
            return None
        rules: list[str] = []
        for policy in selecting:
            for rule in policy["spec"].get(direction) or []:
                rules += self._rule(rule, pod, direction)
        return tuple(dict.fromkeys(rules))

    def _rule(self, rule: Object, pod: Pod, direction: Direction) -> list[str]:
        peers = rule.get("from" if direction == "ingress" else "to")
        side = SOURCE if direction == "ingress" else DESTINATION
        if direction == "ingress":
            targets = [([pod.ip], pod)]
        else:  # a named port means another number in each destination
            targets = [([other.ip], other) for other in self._pods]
        conditions: list[str] = []
        for port in rule.get("ports") or [None]:
            if port is not None and isinstance(port.get("port"), str):
                conditions += self._named(port, peers, pod, direction, targets)
                continue
            prefix = _port(port)
            conditions += [f"{prefix}{who}" for who in self._peers(peers, pod, side)]
        return [condition.strip() for condition in conditions]

    def _named(
        self,
        port: Object,
        peers: Sequence[Object] | None,
        pod: Pod,
        direction: Direction,
        targets: Sequence[tuple[list[str], Pod]],
    ) -> list[str]:
        found = []
        protocol = port.get("protocol", "TCP")
        for ips, owner in targets:
            numbers = [n for name, p, n in owner.ports if name == port["port"] and p == protocol]
            for number in numbers:
                prefix = _port({"protocol": protocol, "port": number})
                if direction == "egress":
                    prefix += f"{DESTINATION} {ips[0]} "
                side = SOURCE if direction == "ingress" else DESTINATION
                found += [f"{prefix}{who}" for who in self._peers(peers, pod, side)]
        return found

    def _peers(self, peers: Sequence[Object] | None, pod: Pod, side: str) -> list[str]:
        """Conditions on the other end; one empty condition stands for anyone."""
        if not peers:
            return [""]
        conditions, addresses = [], set()
        for peer in peers:
            if block := peer.get("ipBlock"):
                holes = block.get("except") or []
                but = f" {side} != {{ {', '.join(holes)} }}" if holes else ""
                conditions.append(f"{side} {block['cidr']}{but}")
            else:
                addresses |= {o.ip for o in self._pods if self._selected(o, peer, pod.namespace)}
        if addresses:
            conditions.insert(0, f"{side} {{ {', '.join(sorted(addresses))} }}")
        return conditions

    def _selected(self, other: Pod, peer: Object, home: str) -> bool:
        if "namespaceSelector" in peer:
            labels = self._namespaces.get(other.namespace, {})
            if not matches(peer["namespaceSelector"] or {}, labels):
                return False
        elif other.namespace != home:
            return False
        return matches(peer.get("podSelector") or {}, other.labels)


def _port(port: Object | None) -> str:
    if port is None:
        return ""
    protocol = f"meta l4proto {port.get('protocol', 'TCP').lower()} "
    if port.get("port") is None:
        return protocol
    last = f"-{port['endPort']}" if port.get("endPort") else ""
    return f"{protocol}{PORT} {port['port']}{last} "
