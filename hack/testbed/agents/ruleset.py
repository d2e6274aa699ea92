"""One node's verdicts as an nftables script that replaces the node's table in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from testbed.agents.policy import DESTINATION, SOURCE, Verdicts

TABLE = "inet testbed-policy"
# Before kube-proxy's chains and its "established" accepts, after its address translation.
PRIORITY = -5


def render(verdicts: Verdicts, pod_range: str) -> str:
    """Pods of the node that the agent does not know yet are cut off: a rule that is still on its
    way must not leave a gap. `admit` in the CNI chain sees to it that no container waits for it."""
    chains: dict[str, tuple[str, ...]] = {}
    inward = _jumps(verdicts.ingress, chains)
    outward = _jumps(verdicts.egress, chains)
    lines = [f"table {TABLE} {{}}", f"delete table {TABLE}", f"table {TABLE} {{"]
    for name in sorted(chains):
        lines += [f"  chain {name} {{", *(f"    {rule} return" for rule in chains[name])]
        lines += ["    counter drop", "  }"]
    lines += ["  chain forward {"]
    lines += [f"    type filter hook forward priority {PRIORITY}; policy accept;"]
    lines += ["    meta nfproto ipv4 ct state invalid,untracked drop"]
    lines += [_strangers(side, pod_range, verdicts.known) for side in (SOURCE, DESTINATION)]
    lines += [*_map(SOURCE, outward), *_map(DESTINATION, inward), "  }"]
    # Towards the node itself only what pods send is judged: the kubelet must reach every pod.
    lines += ["  chain input {"]
    lines += [f"    type filter hook input priority {PRIORITY}; policy accept;"]
    lines += [_strangers(SOURCE, pod_range, verdicts.known), *_map(SOURCE, outward), "  }", "}"]
    return "\n".join(lines) + "\n"


def _jumps(
    rules_by_ip: Mapping[str, tuple[str, ...]], chains: dict[str, tuple[str, ...]]
) -> dict[str, str]:
    """Pods with the same rules share a chain, named after its content."""
    jumps = {}
    for ip, rules in rules_by_ip.items():
        name = "c" + hashlib.sha256("\n".join(rules).encode()).hexdigest()[:16]
        chains[name] = rules
        jumps[ip] = name
    return jumps


def _map(side: str, jumps: Mapping[str, str]) -> list[str]:
    if not jumps:
        return []
    entries = ", ".join(f"{ip} : jump {chain}" for ip, chain in sorted(jumps.items()))
    return [f"    {side} vmap {{ {entries} }}"]


def _strangers(side: str, pod_range: str, known: frozenset[str]) -> str:
    gateway = pod_range.rsplit(".", 1)[0] + ".1"  # the node's own end of every pod's link
    exempt = ", ".join(sorted({gateway, *known}))
    return f"    {side} {pod_range} {side} != {{ {exempt} }} counter drop"
