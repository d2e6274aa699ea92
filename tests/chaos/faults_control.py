"""The API server, etcd and the operator taken away; an image rolled out."""

from __future__ import annotations

import random
from typing import Any

from chaos import partitions
from chaos.lab import NAME, Lab
from chaos.plan import Plan
from testbed.errors import LabError

OPERATOR = "app.kubernetes.io/name=distkv-operator"


def operator_pods(lab: Lab) -> list[dict[str, Any]]:
    found = lab.cluster.items("pods", "-A", "-l", OPERATOR)
    if not found:
        raise LabError("no operator runs in the cluster")
    return found


def _outage(lab: Lab, daemon: str) -> Plan:
    provider = lab.cluster.provider

    def seen() -> str:
        done = lab.cluster.call("get", "--raw", "/readyz", "--request-timeout=3s")
        return "" if done.returncode != 0 else f"the API server is ready without {daemon}"

    return Plan(
        f"{daemon}-outage",
        daemon,
        lambda: provider.control("freeze", daemon),
        lambda: provider.control("heal", daemon),
        seen,
        hold=(6.0, 12.0),
        takes_api=True,
    )


def api_outage(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return _outage(lab, "kube-apiserver")


def etcd_outage(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return _outage(lab, "etcd")


def operator_killed(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    pods = operator_pods(lab)
    namespace = pods[0]["metadata"]["namespace"]
    before = {pod["metadata"]["uid"] for pod in pods}

    def begin() -> None:
        lab.cluster.kubectl(
            *("-n", namespace, "delete", "pod", "-l", OPERATOR),
            *("--force", "--grace-period=0", "--wait=false"),
        )

    def seen() -> str:
        now = {pod["metadata"]["uid"] for pod in operator_pods(lab)}
        return "an operator's pod is still the old one" if now & before else ""

    return Plan("operator-killed", f"{len(pods)} pods of the operator", begin, prove=seen)


def image_roll(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    """The other name of the same image: every pod is replaced, one at a time."""
    first, second = lab.image, f"{lab.image}-again"
    now = lab.resource()["spec"].get("image", first)
    wanted = second if now == first else first
    patch = f'{{"spec":{{"image":"{wanted}"}}}}'
    return Plan(
        "image-roll",
        f"from {now} to {wanted}",
        lambda: lab.space.kubectl("patch", "distkvcluster", NAME, "--type=merge", "-p", patch),
        hold=(5.0, 10.0),
        pods_ending=tuple(lab.pod(ordinal) for ordinal in lab.ordinals),
    )


def isolate_operator(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    pods = operator_pods(lab)
    namespace = pods[0]["metadata"]["namespace"]
    manifest = partitions.whole_pods(
        "chaos-operator", {"app.kubernetes.io/name": "distkv-operator"}
    )
    manifest["metadata"]["namespace"] = namespace
    server = lab.cluster.get("-n", "default", "service", "kubernetes")["spec"]["clusterIP"]
    return Plan(
        "isolate-operator",
        "the operator from everything, the API server included",
        lambda: lab.cluster.apply(manifest),
        lambda: _delete_in(lab, namespace, "chaos-operator"),
        lambda: partitions.prove_isolated(
            lab, namespace, pods[0]["metadata"]["name"], f"{server}:443"
        ),
    )


def _delete_in(lab: Lab, namespace: str, name: str) -> None:
    lab.cluster.kubectl("-n", namespace, "delete", "networkpolicy", name, "--ignore-not-found")
