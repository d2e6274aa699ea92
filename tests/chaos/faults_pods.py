"""Pods deleted, killed and frozen."""

from __future__ import annotations

import random

from chaos.lab import Lab
from chaos.plan import Plan, pick
from testbed.errors import LabError
from testbed.run import run


def replaced(lab: Lab, pod: str, uid: str) -> str:
    try:
        now = lab.space.get("pod", pod)["metadata"]
    except LabError:
        return ""
    return "" if now["uid"] != uid or now.get("deletionTimestamp") else f"{pod} is still there"


def delete_pod(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return delete(lab, rng, usable, False)


def force_delete_pod(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    return delete(lab, rng, usable, True)


def delete(lab: Lab, rng: random.Random, usable: frozenset[int], force: bool) -> Plan:
    one = pick(rng, usable, lab)
    pod = lab.pod(one)
    uid = lab.space.get("pod", pod)["metadata"]["uid"]
    options = ("--force", "--grace-period=0") if force else ()
    return Plan(
        "force-delete-pod" if force else "delete-pod",
        pod,
        lambda: lab.space.kubectl("delete", "pod", pod, "--wait=false", *options),
        prove=lambda: replaced(lab, pod, uid),
        hit=frozenset({one}),
        pods_ending=(pod,),
    )


def _task(lab: Lab, pod: str, *arguments: str) -> None:
    """A containerd command about the only container of a pod, on the node where it runs."""
    found = lab.space.get("pod", pod)
    container = found["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    inside = lab.cluster.provider.inside(found["spec"]["nodeName"])
    run([*inside, "ctr", "-n", "k8s.io", "task", *arguments, container], timeout=30)


def kill(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    pod = lab.pod(one)
    before = lab.space.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"]

    def seen() -> str:
        now = lab.space.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"]
        return "" if now > before else f"{pod} has not been restarted"

    return Plan(
        "kill-9",
        pod,
        lambda: _task(lab, pod, "kill", "--signal", "SIGKILL"),
        prove=seen,
        hit=frozenset({one}),
        pods_ending=(pod,),
    )


def freeze(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    pod, address = lab.pod(one), lab.address(one)
    return Plan(
        "freeze",
        f"every process of {pod}",
        lambda: _task(lab, pod, "pause"),
        lambda: _task(lab, pod, "resume"),
        lambda: silent(lab, one, address),
        hit=frozenset({one}),
        # A liveness probe may have lost patience.
        pods_ending=(pod,),
    )


def silent(lab: Lab, ordinal: int, address: str) -> str:
    answer = lab.statuses({ordinal: address})[ordinal]
    return "" if answer is None else f"{lab.pod(ordinal)} still answers"
