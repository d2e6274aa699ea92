"""What a member says of itself and of the cluster: GET /v1/status, for people and programs.

Names and meanings are stable: the operator, `distkv status` and `distkv local status` read
them. A number that is not known is null, never 0.

Of the node itself (before it is seated only the first lines are there):

| field | meaning |
|---|---|
| cluster, generation, ordinal, incarnation, boot | who it is |
| state, detail | one word of `state_of`, and a sentence for a person |
| formed, serving, owner | the cluster takes writes; this node takes requests; who may change it |
| role, leader, ballot, elections | of consensus; leader is an ordinal |
| chosen, applied, durable, log_first | slots |
| layout | epoch, data_shards, parity_shards, failures (f), members [[ordinal, incarnation]] |
| keys, queued_commands, pending_commands, pending_reads, log_time_ms, memory_in_flight | counts |
| shards, shards_bytes, shards_pending | held; their bytes; not named by a record |
| shards_missing, shards_corrupt | not here yet; pieces found rotten since the start |
| repair_bytes_done, repair_bytes_left, repair_bytes_per_second, repair_seconds_left | of repair |
| under_coded, under_coded_bytes, under_coded_seconds_left | values that are coded otherwise \
than the layout wants; of them all nodes know the same |
| values_lost | values of which too few shards are left, as far as this node found out |
| health | repair, restripe and scrub in detail, see member.health |
| disk_full | true: read-only |
| peers_up, members_up, peers | who is connected; what each said last |
| suspicions | [{source, kind, count, detail}], see member.suspicions |
| cluster_view | the whole cluster as this node sees it, at most a second old |

`cluster_view` may be asked of any node:

| field | meaning |
|---|---|
| shards, shards_missing, shards_corrupt, repair_bytes_... | sums over all members |
| under_coded, under_coded_bytes, under_coded_seconds_left | as above |
| values_lost, repair_seconds_left | the largest of all members' |
| survives.available | so many more nodes may stop, and reads and writes go on |
| survives.durable | so many more disks may be lost, and no acknowledged value is |
| survives.durable_if_silent_return | the same, if their disks are whole |
| members | rows: see below |

A row of `members` has ordinal, incarnation, up, role, state, serving, applied, disk_full,
suspicions, the shard and repair fields above, and disk_lost: another incarnation sits in this
member's place and waits to be admitted. For `durable` a node that does not answer counts as
lost; member.survival says exactly what `survives` means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.member.health import health_of, lost_count
from distkv.member.messages import MENDING, known
from distkv.member.standing import Standing, describe, standing_of
from distkv.member.work import work_of
from distkv.storage.base import CorruptRow

if TYPE_CHECKING:
    from distkv.member.seat import Seat

UNFOUNDED = "waiting to be founded"
"""State of a node that knows of no cluster."""


def state_without_seat(founded: bool, regaining: bool) -> tuple[str, str]:
    """Of a node that has no seat, as `state_of`."""
    if regaining:
        return MENDING, (
            "a snapshot of the metadata was half installed when the node stopped, and what was "
            "staged of it is damaged: a peer's state takes its place, and until then this node "
            "takes part in nothing"
        )
    if founded:
        return UNFOUNDED, "this node makes the list of founders durable; try again"
    return UNFOUNDED, (
        "this node has an empty directory: it waits to be founded by the cluster's owner, or to "
        "be told of the cluster by a peer"
    )


def state_of(seat: Seat) -> tuple[str, str]:
    """One word, and one sentence for a person."""
    if seat.replica.held:
        return MENDING, "metadata on the disk are damaged: a peer's state takes their place"
    if seat.receiver.active:
        return "catching up", "a snapshot of the metadata is on its way"
    standing = standing_of(seat)
    if standing is not Standing.VOTER:
        return standing.value, describe(seat)
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


def health_fields(seat: Seat) -> dict[str, object]:
    """Those of `status_of` that probes look at, without the work for the others."""
    state, detail = state_of(seat)
    serving = state == "serving"
    return {"serving": serving, "state": state, "detail": detail, "keys": keys_of(seat)}


def keys_of(seat: Seat) -> int:
    """How many keys there are; with those whose time is over, if it cannot be read which."""
    try:
        return seat.machine.count()
    except CorruptRow as rot:
        seat.healer.met(rot)
        return seat.machine.keyspace.rows


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
        "durable": replica.durable,
        "log_first": replica.first,
        "elections": replica.elections,
        "consensus_rounds": replica.rounds,
        "read_rounds": replica.read_rounds,
        "queued_commands": replica.queued,
        "pending_commands": len(seat.pending),
        "pending_reads": len(seat.reads),
        "log_time_ms": machine.log_time_ms,
        "keys": keys_of(seat),
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
        **_repair(seat),
        **seat.overview.under_coded(),
        "values_lost": lost_count(seat),
        "health": health_of(seat),
        "cluster_view": seat.overview.cluster(),
        "peers": {
            str(ordinal): greeting._asdict()
            for ordinal, greeting in sorted(seat.owner.peers.greetings.items())
        },
    }


def _repair(seat: Seat) -> dict[str, object]:
    work = work_of(seat)
    return {
        "repair_bytes_done": work.done,
        "repair_bytes_left": known(work.left),
        "repair_bytes_per_second": work.rate,
        "repair_seconds_left": known(work.seconds),
    }
