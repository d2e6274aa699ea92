"""Partitions made of network policies, and the probes that show them to be real."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from chaos.lab import HTTP_PORT, NAME, Lab
from testbed.errors import LabError

POD_NAME = "statefulset.kubernetes.io/pod-name"
COMPONENT = "app.kubernetes.io/component"
NAMESPACE = "kubernetes.io/metadata.name"
CHAOS = {"chaos": "partition"}

Manifest = dict[str, Any]


def everyone_but(lab: Lab, others: Collection[int]) -> list[Manifest]:
    """Peers of a rule: all pods but these members. Policies know no "not", so the rest is named."""
    names = [lab.pod(ordinal) for ordinal in sorted(others)]
    here = {"matchExpressions": [{"key": POD_NAME, "operator": "NotIn", "values": names}]}
    elsewhere = {
        "matchExpressions": [{"key": NAMESPACE, "operator": "NotIn", "values": [lab.space.name]}]
    }
    return [{"podSelector": here}, {"namespaceSelector": elsewhere}]


def between(
    lab: Lab, name: str, side: Collection[int], others: Collection[int], one_way: bool = False
) -> Manifest:
    """Cuts `side` off from `others`, and leaves every other pod in reach of both.

    One way: only what `side` begins towards `others` is cut; answers are part of what the other
    end began, so a policy cannot tell them apart.
    """
    pods = [lab.pod(ordinal) for ordinal in sorted(side)]
    allowed = everyone_but(lab, others)
    spec: Manifest = {
        "podSelector": {"matchExpressions": [{"key": POD_NAME, "operator": "In", "values": pods}]},
        "policyTypes": ["Egress"],
        "egress": [{"to": allowed}],
    }
    if not one_way:
        spec |= {"policyTypes": ["Egress", "Ingress"], "ingress": [{"from": allowed}]}
    return _policy(name, spec)


def gateways_from_nodes(lab: Lab, name: str) -> Manifest:
    """The gateways reach no member; clients still reach the gateways."""
    selector = {
        "matchLabels": {"app.kubernetes.io/instance": NAME, COMPONENT: "gateway"},
    }
    spec = {
        "podSelector": selector,
        "policyTypes": ["Egress"],
        "egress": [{"to": everyone_but(lab, lab.ordinals)}],
    }
    return _policy(name, spec)


def whole_pods(name: str, labels: dict[str, str]) -> Manifest:
    """Pods with these labels reach nobody, and nobody reaches them."""
    spec = {
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Egress", "Ingress"],
        "egress": [],
        "ingress": [],
    }
    return _policy(name, spec)


def _policy(name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": dict(CHAOS)},
        "spec": spec,
    }


def prove_cut(
    lab: Lab, addresses: dict[int, str], side: Sequence[int], others: Sequence[int], one_way: bool
) -> str:
    """Empty if it is so: no new connection passes, and the flows that were there are dead too.

    The clients must still reach the members that are cut off, or it was not the policy that cut.
    """
    first, second = side[0], others[0]
    there = f"{addresses[second]}:{HTTP_PORT}"
    back = f"{addresses[first]}:{HTTP_PORT}"
    if lab.look(lab.pod(first), "connect", [there])[there]:
        return f"{lab.pod(first)} still connects to {lab.pod(second)}"
    reached = lab.look(lab.pod(second), "connect", [back])[back]
    if one_way:
        return "" if reached else f"{lab.pod(second)} should still connect to {lab.pod(first)}"
    if reached:
        return f"{lab.pod(second)} still connects to {lab.pod(first)}"
    statuses = lab.statuses({ordinal: addresses[ordinal] for ordinal in side})
    for ordinal, status in statuses.items():
        if status is None:
            return f"the clients do not reach {lab.pod(ordinal)} either"
        if status["members_up"] > len(side):
            return f"{lab.pod(ordinal)} still hears {status['members_up']} members"
    return ""


def prove_isolated(lab: Lab, namespace: str, pod: str, target: str) -> str:
    """Empty if a pod reaches a target no more."""
    try:
        said = lab.cluster.kubectl(
            *("-n", namespace, "exec", pod, "--", "python", "-c"),
            "import socket,sys;h,p=sys.argv[1].split(':');socket.create_connection((h,int(p)),2)",
            target,
        )
    except LabError:
        return ""
    return f"{pod} still reaches {target} {said}"
