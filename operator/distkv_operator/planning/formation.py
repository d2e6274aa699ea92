"""Formation exactly once, as the owner: each word is durable before anything relies on it.

    record made (cluster id)  ->  founders recorded  ->  found sent to ordinal 0
        ->  formed recorded  ->  formed submitted to the log

Every round takes the first of these that is not done. So an operator that dies anywhere goes
on with the same list, and a cluster that was formed is never founded again, whatever became of
its status, its resource or its volumes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from distkv_operator.planning.observed import Observed, Seat, annotations_of
from distkv_operator.planning.record import Holder, Record, claim_annotations, from_claims
from distkv_operator.planning.steps import AnnotateClaim, Command, Step, WriteRecord

START_ANEW_ANNOTATION = "distkv.io/start-anew"


@dataclass(frozen=True)
class Formation:
    """Where the formation stands. `reason` and `message` are for a condition."""

    reason: str
    message: str
    steps: tuple[Step, ...] = ()
    record: Record | None = None
    """The record to go by in this round; None: nothing may be made yet."""
    holds: bool = False
    """Somebody has to decide: nothing is made, nothing is deleted."""


def form(observed: Observed, fresh_cluster_id: str) -> Formation:
    """What to do next. `fresh_cluster_id`: 32 random hexadecimal digits, if one is needed."""
    if observed.record_fault:
        message = (
            f"the Secret of the formation record cannot be read: {observed.record_fault}; "
            "restore it, or delete it to have it made again from the claims' annotations"
        )
        return Formation("RecordUnreadable", message, holds=True)
    if observed.record is None:
        return _begin(observed, fresh_cluster_id)
    record = observed.record
    if record.resource != observed.uid or record.deletes_claims != _deletes_claims(observed):
        return _taken_over(observed, record, fresh_cluster_id)
    if record.formed:
        return _formed(observed, record)
    return _found(observed, record)


def _begin(observed: Observed, fresh_cluster_id: str) -> Formation:
    """No record: adopt the claims there are, else begin a cluster."""
    claims = [(s.ordinal, s.claim) for s in observed.seats if s.claim is not None]
    if not claims and not observed.status.get("formed"):
        record = Record(fresh_cluster_id, observed.uid, _deletes_claims(observed))
        return Formation("Founding", "the cluster id is being recorded", (WriteRecord(record),))
    adopted = from_claims(claims, observed.uid)
    if adopted is not None:
        record = replace(adopted, deletes_claims=_deletes_claims(observed))
        return Formation(
            "Adopting", "volumes of this cluster were found and are adopted", (WriteRecord(record),)
        )
    if not claims:
        lost = str(observed.status.get("clusterId") or "unknown")
        if observed.annotations.get(START_ANEW_ANNOTATION) == lost:
            record = Record(fresh_cluster_id, observed.uid, _deletes_claims(observed))
            return Formation("Founding", "starting anew", (WriteRecord(record),))
        return _volumes_lost(lost)
    message = (
        "there are claims of this cluster's name, but nothing says which cluster they belong to: "
        "restore the Secret of the formation record, or delete the claims if they are not needed"
    )
    return Formation("UnknownClaims", message, holds=True)


def _taken_over(observed: Observed, record: Record, fresh_cluster_id: str) -> Formation:
    """The record was made for an earlier resource of this name, or the policy changed."""
    has_claims = any(seat.claim is not None for seat in observed.seats)
    is_new_resource = record.resource != observed.uid
    if is_new_resource and record.deletes_claims and not has_claims:
        # Deleted together with its volumes, on purpose: this is a new cluster.
        fresh = Record(fresh_cluster_id, observed.uid, _deletes_claims(observed))
        step = WriteRecord(replace(fresh, version=record.version))
        return Formation("Founding", "a new cluster takes a deleted one's name", (step,))
    kept = replace(record, resource=observed.uid, deletes_claims=_deletes_claims(observed))
    if record.formed and not is_new_resource:
        # Another policy is no reason to call a cluster that serves anything but formed.
        following = _formed(observed, kept)
        return replace(following, steps=(WriteRecord(kept), *following.steps))
    return Formation("Adopting", "the record is adopted", (WriteRecord(kept),), record)


def _found(observed: Observed, record: Record) -> Formation:
    seats = observed.wanted
    told = [seat for seat in seats if seat.report.is_founded and _is_ours(seat, record)]
    if any(seat.report.is_formed for seat in told):
        return _write_formed(observed, record, "Adopting", "the nodes are formed already")
    if told and not record.founders:
        # The record was lost between `found` and now: the nodes hold the list.
        return _write_formed(observed, record, "Adopting", "the nodes were founded already")
    silent = [seat.ordinal for seat in seats if seat.report.incarnation is None]
    if silent and not (told and record.founders):
        message = f"waiting for {_names(silent)} to start: {_why_silent(seats, silent[0])}"
        return Formation("WaitingForNodes", message, record=record)
    if not record.founders:
        members = {s.ordinal: Holder(s.report.incarnation or 0, s.claim_uid) for s in seats}
        step = WriteRecord(replace(record, members=members, founders=True))
        return Formation("Founding", "the founders are being recorded", (step,), record)
    if 0 in (seat.ordinal for seat in told):
        return _write_formed(observed, record, "Forming", "the nodes are founded")
    present = {s.ordinal: s.report.incarnation for s in seats}
    listed = {ordinal: holder.incarnation for ordinal, holder in record.members.items()}
    if present != listed:
        return _changed_founders(seats, record, present, listed)
    return Formation("Founding", "the nodes are being founded", (_found_command(observed, record),),
                     record)  # fmt: skip


def _found_command(observed: Observed, record: Record) -> Command:
    members = [[ordinal, holder.incarnation] for ordinal, holder in sorted(record.members.items())]
    body = {
        "cluster_id": record.cluster_id,
        "owner": record.owner,
        "layout": {
            "data_shards": observed.spec.data_shards,
            "parity_shards": observed.spec.parity_shards,
        },
        "members": members,
    }
    return Command(0, "/v1/admin/found", body, "founding the cluster")


def _changed_founders(
    seats: tuple[Seat, ...],
    record: Record,
    present: dict[int, int | None],
    listed: dict[int, int],
) -> Formation:
    """Some directory was made anew before the cluster existed."""
    first_is_untold = present.get(0) == listed.get(0) and not seats[0].report.is_founded
    nobody_told = not any(seat.report.is_founded for seat in seats)
    if len(listed) != len(present) or (first_is_untold and nobody_told):
        # Ordinal 0 alone can have been founded, and it says that it was not: list them anew.
        members = {s.ordinal: Holder(s.report.incarnation or 0, s.claim_uid) for s in seats}
        step = WriteRecord(replace(record, members=members))
        return Formation("Founding", "the founders are being recorded anew", (step,), record)
    changed = [o for o in listed if present.get(o) != listed[o]]
    message = (
        f"the directory of {_names(changed)} was made anew while the cluster was being founded; "
        "nothing was stored yet: delete the resource and its claims, and apply it again"
    )
    return Formation("FoundersChanged", message, record=record, holds=True)


def _write_formed(observed: Observed, record: Record, reason: str, message: str) -> Formation:
    members = dict(record.members)
    if not record.founders:
        members = _members_by_nodes(observed, record)
    step = WriteRecord(replace(record, members=members, founders=True, formed=True))
    return Formation(reason, message, (step,), record)


def _members_by_nodes(observed: Observed, record: Record) -> dict[int, Holder]:
    """Who the nodes say the members are; the claim is known where the member itself answers."""
    found: dict[int, Holder] = {}
    for seat in observed.seats:
        for other in observed.seats:
            incarnation = other.report.member(seat.ordinal)
            if incarnation is not None and _is_ours(other, record):
                is_here = seat.report.incarnation == incarnation
                found[seat.ordinal] = Holder(incarnation, seat.claim_uid if is_here else "")
                break
    return found


def _formed(observed: Observed, record: Record) -> Formation:
    if not any(seat.claim is not None for seat in observed.seats):
        if observed.annotations.get(START_ANEW_ANNOTATION) == record.cluster_id:
            return Formation("Founding", "starting anew", (_anew(observed, record),), None)
        return replace(_volumes_lost(record.cluster_id), record=record)
    steps: list[Step] = list(_mirror(observed, record))
    told = [s for s in observed.wanted if s.report.is_founded and _is_ours(s, record)]
    if not told and _are_all_other_claims(observed, record):
        message = (
            f"cluster {record.cluster_id} was formed and every one of its volumes is gone: the "
            "claims there are now were made since. Nothing is founded, so that the volumes can be "
            "put back. To give the data up: delete the resource and these claims, apply it again "
            f"annotated with {START_ANEW_ANNOTATION}={record.cluster_id}"
        )
        return Formation("VolumesLost", message, tuple(steps), record)
    if not told:
        return Formation("WaitingForNodes", "waiting for the nodes to answer", tuple(steps), record)
    if not any(seat.report.is_formed for seat in told):
        body = {"cluster_id": record.cluster_id, "owner": record.owner}
        # Any node takes the command; the one that leads, or follows somebody, gets it through.
        asked = max(told, key=lambda s: (s.report.role == "leader", s.report.leader is not None))
        steps.append(Command(asked.ordinal, "/v1/admin/formed", body, "recording the formation"))
        return Formation("Forming", "the formation is being put into the log", tuple(steps), record)
    return Formation("Formed", "the cluster is formed", tuple(steps), record)


def _anew(observed: Observed, record: Record) -> WriteRecord:
    """An empty record under the id that the person who asked for it cannot have mistyped."""
    digits = record.cluster_id
    fresh = f"{(int(digits, 16) + 1) % (1 << 128):032x}"
    return WriteRecord(
        Record(fresh, observed.uid, _deletes_claims(observed), version=record.version)
    )


def _mirror(observed: Observed, record: Record) -> list[AnnotateClaim]:
    """Claims that do not say yet what the record says; only those known to be a member's."""
    steps = []
    for seat in observed.seats:
        holder = record.members.get(seat.ordinal)
        if seat.claim is None or holder is None or holder.claim != seat.claim_uid:
            continue
        wanted = claim_annotations(record, seat.ordinal)
        said = annotations_of(seat.claim)
        if any(said.get(key) != value for key, value in wanted.items()):
            steps.append(AnnotateClaim(seat.claim["metadata"]["name"], seat.claim_uid, wanted))
    return steps


def _volumes_lost(cluster_id: str) -> Formation:
    message = (
        f"cluster {cluster_id} was formed and every one of its volumes is gone; nothing is done, "
        "so that they can be put back. To give its data up and start an empty cluster, annotate "
        f"the resource: {START_ANEW_ANNOTATION}={cluster_id}"
    )
    return Formation("VolumesLost", message, holds=True)


def _are_all_other_claims(observed: Observed, record: Record) -> bool:
    """Whether no claim is one of those recorded. (Volumes that were put back may be on new claims:
    their nodes say that they were founded.)"""
    recorded = {holder.claim for holder in record.members.values()}
    if not recorded or "" in recorded:
        return False
    return not any(seat.claim_uid in recorded for seat in observed.seats if seat.claim)


def _is_ours(seat: Seat, record: Record) -> bool:
    return seat.report.cluster == record.cluster_id


def _deletes_claims(observed: Observed) -> bool:
    return observed.spec.deletion_policy == "Delete"


def _names(ordinals: list[int]) -> str:
    return ("node " if len(ordinals) == 1 else "nodes ") + ", ".join(map(str, ordinals))


def _why_silent(seats: tuple[Seat, ...], ordinal: int) -> str:
    seat = seats[ordinal]
    if seat.pod is None:
        return f"node {ordinal} has no pod yet"
    return seat.waits_because or f"node {ordinal} does not answer ({seat.report.reason})"
