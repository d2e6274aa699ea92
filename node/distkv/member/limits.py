"""The bounds of the data plane, from what the member was told."""

from __future__ import annotations

from distkv.data.disperser import DisperserLimits
from distkv.data.plane import Limits
from distkv.data.repair import RepairLimits
from distkv.data.restripe import RestripeLimits
from distkv.data.scrub import ScrubLimits
from distkv.data.shards import KeeperLimits
from distkv.member.options import MemberOptions


def limits_of(o: MemberOptions, inline_max: int) -> Limits:
    """`inline_max`: what the cluster was founded with."""
    return Limits(
        KeeperLimits(grace_seconds=o.grace, grace_bytes=o.grace_bytes),
        DisperserLimits(inline_max, o.value_max, o.stripe_bytes),
        RepairLimits(bytes_per_second=o.repair_bytes_per_second, pass_seconds=o.repair_pass_every),
        RestripeLimits(settle_seconds=o.restripe_after),
        ScrubLimits(period=o.scrub_period),
        o.memory_in_flight,
    )
