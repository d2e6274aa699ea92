"""Kubernetes nodes stopped, cut off, frozen, drained and cordoned."""

from __future__ import annotations

import random
from collections import Counter

from chaos.faults_pods import delete, replaced, silent
from chaos.lab import CLIENTS, NAME, Lab
from chaos.plan import Plan, pick


def apart(lab: Lab, usable: frozenset[int]) -> frozenset[int]:
    """Members that have a Kubernetes node to themselves. After an earlier fault one may have
    come to the node of another, or of the clients, who are to see all of it."""
    hosts = {ordinal: lab.node_of(lab.pod(ordinal)) for ordinal in lab.ordinals}
    count = Counter([lab.node_of(CLIENTS), *hosts.values()])
    return frozenset(ordinal for ordinal in usable if count[hosts[ordinal]] == 1)


def node_fault(lab: Lab, rng: random.Random, usable: frozenset[int], verb: str, undo: str) -> Plan:
    one = pick(rng, apart(lab, usable), lab)
    pod, address = lab.pod(one), lab.address(one)
    node = lab.node_of(pod)
    provider = lab.cluster.provider
    return Plan(
        f"node-{verb}",
        f"{node} with {pod}",
        lambda: provider.node(verb, node),
        lambda: provider.node(undo, node),
        lambda: silent(lab, one, address),
        hit=frozenset({one}),
        hold=(12.0, 25.0),
        # Its container ends with the node; away too long, the pod is given up as well.
        pods_ending=(pod, pod),
    )


def node_stop(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return node_fault(lab, rng, usable, "stop", "start")


def node_partition(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return node_fault(lab, rng, usable, "partition", "heal")


def node_freeze(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return node_fault(lab, rng, usable, "freeze", "heal")


def drain(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    pod = lab.pod(one)
    node, uid = lab.node_of(pod), lab.space.get("pod", pod)["metadata"]["uid"]
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    chosen = f"--pod-selector=app.kubernetes.io/instance={NAME}"
    return Plan(
        "drain",
        f"{node} with {pod}",
        lambda: _drain(lab, node, *options, chosen),
        lambda: lab.space.kubectl("uncordon", node),
        lambda: replaced(lab, pod, uid),
        hit=frozenset({one}),
        pods_ending=(pod,),
    )


def _drain(lab: Lab, node: str, *options: str) -> None:
    lab.cluster.kubectl("drain", node, *options, timeout=90)


def cordon(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    """And the pod deleted: with a volume of that node it has to wait there."""
    plan = delete(lab, rng, usable, False)
    node = lab.node_of(plan.pods_ending[0])
    take_away = plan.begin

    def begin() -> None:
        lab.cluster.kubectl("cordon", node)
        take_away()

    plan.name, plan.what, plan.begin = "cordon", f"{node}, and {plan.what} deleted", begin
    plan.end = lambda: lab.space.kubectl("uncordon", node)
    return plan
