"""Partitions made of network policies."""

from __future__ import annotations

import random

from chaos import partitions
from chaos.lab import Lab
from chaos.plan import Plan, pick
from testbed.errors import LabError


def _partition(lab: Lab, name: str, what: str, side: list[int], one_way: bool = False) -> Plan:
    others = [ordinal for ordinal in lab.ordinals if ordinal not in side]
    addresses = {ordinal: lab.address(ordinal) for ordinal in lab.ordinals}
    manifest = partitions.between(lab, f"chaos-{name}", side, others, one_way)
    minority = len(side) < lab.size - lab.failures

    return Plan(
        name,
        what,
        lambda: lab.space.apply(manifest),
        lambda: remove(lab, f"chaos-{name}"),
        lambda: partitions.prove_cut(lab, addresses, side, others, one_way),
        hit=frozenset() if one_way else frozenset(side),
        cut_off=tuple(side) if minority and not one_way else (),
        spares_writes=one_way or len(side) <= lab.failures,
    )


def isolate_one(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    return _partition(lab, "isolate-one", f"{lab.pod(one)} from its peers, not from clients", [one])


def minority_leader(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    leader = lab.leader()
    rest = sorted(usable - {leader})
    if leader not in usable or len(rest) < lab.failures - 1:
        raise LabError("the leader or its company is hit already")
    side = [leader, *rng.sample(rest, lab.failures - 1)]
    return _partition(lab, "minority-leader", f"leader {leader} with {side[1:]} on its side", side)


def majority_leader(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    leader = lab.leader()
    rest = sorted(usable - {leader})
    if len(rest) < lab.failures:
        raise LabError("too few members are left")
    side = rng.sample(rest, lab.failures)
    return _partition(lab, "majority-leader", f"{side} from leader {leader} and the rest", side)


def split(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    """Two halves drawn at random, whoever leads."""
    if len(usable) < lab.failures:
        raise LabError("too few members are left")
    side = sorted(rng.sample(sorted(usable), lab.failures))
    return _partition(lab, "split", f"{side} from the rest", side)


def one_way(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    return _partition(lab, "one-way", f"what {lab.pod(one)} begins towards its peers", [one], True)


def isolate_gateways(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    manifest = partitions.gateways_from_nodes(lab, "chaos-gateways")
    return Plan(
        "isolate-gateways",
        "the gateways from all members; clients of members go on",
        lambda: lab.space.apply(manifest),
        lambda: lab.space.kubectl(
            "delete", "networkpolicy", "--ignore-not-found", "chaos-gateways"
        ),
        lambda: _gateways_refuse(lab),
    )


def remove(lab: Lab, policy: str) -> None:
    lab.space.kubectl("delete", "networkpolicy", policy, "--ignore-not-found")


def _gateways_refuse(lab: Lab) -> str:
    pods = lab.space.items("pods", "-l", "app.kubernetes.io/component=gateway")
    ready = [
        pod["metadata"]["name"]
        for pod in pods
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    return f"{', '.join(ready)} are still ready" if ready else ""
