"""Claims deleted; disks gone, full and slow."""

from __future__ import annotations

import random

from chaos.faults_nodes import node_fault
from chaos.lab import Lab
from chaos.plan import Plan, pick
from testbed.errors import LabError
from testbed.run import run


def claim_deleted(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    pod, claim = lab.pod(one), lab.claim(one)
    uid = lab.space.get("pvc", claim)["metadata"]["uid"]

    def begin() -> None:
        lab.space.kubectl("delete", "pvc", claim, "--wait=false")
        lab.space.kubectl("delete", "pod", pod, "--wait=false")

    def seen() -> str:
        now = lab.space.get("pvc", claim)["metadata"]["uid"]
        return f"{claim} is still the old one" if now == uid else ""

    return Plan(
        "claim-deleted",
        claim,
        begin,
        prove=seen,
        hit=frozenset({one}),
        # A pod may have come back before its claim was gone, and wait until it is deleted again.
        pods_ending=(pod, pod, pod),
    )


def disk_gone(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    """The Kubernetes node loses its disk for good and comes back empty."""
    plan = node_fault(lab, rng, usable, "stop", "start")
    node = plan.what.partition(" ")[0]
    plan.name = "disk-gone"
    plan.begin = lambda: lab.cluster.provider.node("stop", node, True)
    plan.pods_ending *= 2
    return plan


def disk_full(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    one = pick(rng, usable, lab)
    pod = lab.pod(one)
    ballast = "/var/lib/distkv/ballast"
    fill = (
        "import os\n"
        f"f = os.open({ballast!r}, os.O_CREAT | os.O_WRONLY)\n"
        "s = os.statvfs('/var/lib/distkv')\n"
        "n, at = s.f_bavail * s.f_frsize, 0\n"
        "while n > 4096:\n"
        "    try:\n"
        "        os.posix_fallocate(f, at, n); at += n\n"
        "    except OSError:\n"
        "        n //= 2\n"
    )
    return Plan(
        "disk-full",
        f"the volume of {pod}",
        lambda: lab.space.kubectl("exec", pod, "--", "python", "-c", fill),
        lambda: lab.space.kubectl("exec", pod, "--", "rm", "-f", ballast),
        lambda: _full(lab, pod),
        hit=frozenset({one}),
        pods_ending=(pod,),
    )


def _full(lab: Lab, pod: str) -> str:
    free = int(lab.space.run(pod, "df", "-P", "-k", "/var/lib/distkv").split()[-3])
    return "" if free < 8192 else f"{free} KiB are still free"


def disk_slow(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
    """The file system stands still nine tenths of the time, in pulses: a disk that is very slow."""
    one = pick(rng, usable, lab)
    pod = lab.pod(one)
    volume = lab.space.get("pvc", lab.claim(one))["spec"]["volumeName"]
    local = lab.cluster.get("pv", volume)["spec"].get("local")
    if not local:
        raise LabError("volumes of this provider have no file system of their own")
    inside = lab.cluster.provider.inside(lab.node_of(pod))
    path = local["path"]
    pulses = (
        f"touch /run/slow; while [ -e /run/slow ]; do fsfreeze -f {path}; sleep 0.45; "
        f"fsfreeze -u {path}; sleep 0.05; done"
    )

    def shell(script: str) -> None:
        run([*inside, "sh", "-c", script], timeout=20)

    start = f"({pulses}) >/dev/null 2>&1 </dev/null &"
    stop = f"rm -f /run/slow; sleep 0.7; fsfreeze -u {path} 2>/dev/null || true"
    return Plan(
        "disk-slow",
        f"the volume of {pod} stands still nine tenths of the time",
        lambda: shell(start),
        lambda: shell(stop),
        lambda: _slow(lab, pod),
        hit=frozenset({one}),
        pods_ending=(pod,),
    )


def _slow(lab: Lab, pod: str) -> str:
    """Many small writes for longer than the file system stands still at a time: one meets that."""
    program = (
        "import os,time\nend=time.monotonic()+1.2;worst=0\n"
        "while time.monotonic()<end:\n"
        "    b=time.monotonic();f=os.open('/var/lib/distkv/probe',os.O_CREAT|os.O_WRONLY);"
        "os.write(f,b'x');os.fsync(f);os.close(f);worst=max(worst,time.monotonic()-b)\n"
        "os.unlink('/var/lib/distkv/probe');print(worst)"
    )
    worst = float(lab.space.run(pod, "python", "-c", program))
    return "" if worst > 0.3 else f"in a second the slowest small write took {worst:.2f} s"
