"""What a seated member says of itself on the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distkv.member.seat import Seat


def state_of(seat: Seat) -> tuple[str, str]:
    """One word, and one sentence for a person."""
    if seat.receiver.active:
        return "catching up", "a snapshot of the metadata is on its way"
    if not seat.machine.configuration.is_voter(seat.member):
        return (
            "waiting to be admitted",
            "this directory is new in a formed cluster: the node catches up but does not vote "
            "as its old self; the cluster's owner must admit it",
        )
    if not seat.machine.formed:
        return "forming", "the owner has not recorded the formation yet"
    if not seat.booted:
        return "starting", "its start is not in the log yet: there may be no leader"
    if seat.owner.disk_full:
        return "read-only", "the disk is full"
    if seat.quorum_lost:
        return "no quorum", seat.situation()
    if seat.closing:
        return "stopping", "requests under way are ended, new ones refused"
    return "serving", ""


def status_of(seat: Seat) -> dict[str, object]:
    """Plain data."""
    machine, configuration = seat.machine, seat.machine.configuration
    replica = seat.replica.status()
    state, detail = state_of(seat)
    keeper = seat.data.keeper
    return {
        "state": state,
        "detail": detail,
        "formed": machine.formed,
        "owner": machine.membership.owner,
        "serving": state == "serving",
        "role": replica.role,
        "leader": None if replica.leader is None else replica.leader.ordinal,
        "ballot": list(replica.ballot),
        "chosen": replica.chosen,
        "applied": machine.applied,
        "log_first": replica.first,
        "elections": replica.elections,
        "queued_commands": replica.queued,
        "pending_commands": len(seat.pending),
        "pending_reads": len(seat.reads),
        "log_time_ms": machine.log_time_ms,
        "keys": machine.count(),
        "layout": {
            "epoch": configuration.epoch,
            "data_shards": configuration.data_shards,
            "parity_shards": configuration.parity_shards,
            "failures": configuration.failures,
            "members": [list(member) for member in configuration.members],
        },
        "members_up": seat.owner.peers.members_up(configuration),
        "incarnation": seat.member.incarnation,
        "shards": keeper.counters.held,
        "shards_bytes": keeper.counters.piece_bytes,
        "shards_missing": seat.missing,
        "shards_corrupt": keeper.counters.corrupt,
        "shards_pending": keeper.pending,
        "memory_in_flight": seat.data.budget.used,
        "peers": {
            str(ordinal): greeting._asdict()
            for ordinal, greeting in sorted(seat.owner.peers.greetings.items())
        },
    }
