"""Formation exactly once: what each observation leads to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.operator.builders.support import CLUSTER_ID

from distkv_operator.planning.formation import Formation, form
from distkv_operator.planning.observed import Observed, Seat
from distkv_operator.planning.record import Holder, Record, from_claims
from distkv_operator.planning.steps import AnnotateClaim, Command, WriteRecord

from .support import (
    FRESH,
    SILENT,
    claim,
    condition,
    incarnation,
    planned,
    record,
    said,
    seat,
    settled,
    taken,
    unfounded,
)

BEGUN = Record(CLUSTER_ID, "uid-1", version="1")
EMPTY: dict[str, Any] = {"pod": None, "claim": None, "host": None, "report": SILENT}


def bare(**changes: Any) -> Observed:
    """No pods, no claims."""
    return settled(*(seat(o, **EMPTY) for o in range(5)), **changes)


def starting(**changes: Any) -> Observed:
    """All nodes run, and none was founded; the claims say nothing."""
    seats = (seat(o, unfounded(o), claim=claim(o)) for o in range(5))
    return settled(*seats, layout_progress=None, **{"status": {}, "record": BEGUN} | changes)


def formation(observed: Observed) -> Formation:
    return form(observed, FRESH.cluster_id)


def written(found: Formation) -> Record:
    (step,) = found.steps
    assert isinstance(step, WriteRecord)
    return step.record


def test_a_new_resource_begins_with_the_record_and_nothing_else() -> None:
    observed = bare(record=None, status={})
    assert written(formation(observed)) == Record(FRESH.cluster_id, "uid-1")
    assert planned(observed).steps == formation(observed).steps


def test_with_an_empty_record_children_and_secrets_are_made_and_nodes_awaited() -> None:
    found = formation(bare(record=BEGUN, status={}))
    assert (found.reason, found.steps, found.record) == ("WaitingForNodes", (), BEGUN)
    assert "node 0 has no pod yet" in found.message


def test_one_silent_node_keeps_the_founding_waiting() -> None:
    observed = starting()
    seats = (*observed.seats[:3], replace(observed.seats[3], report=SILENT), observed.seats[4])
    assert formation(replace(observed, seats=seats)).reason == "WaitingForNodes"


def test_founders_are_recorded_before_anybody_is_told() -> None:
    made = written(formation(starting()))
    assert made.founders
    assert not made.formed
    assert made.members == {o: Holder(incarnation(o), f"claim-{o}") for o in range(5)}


def test_recorded_founders_are_sent_to_ordinal_0() -> None:
    listed = record(formed=False)
    (step,) = formation(starting(record=listed)).steps
    assert isinstance(step, Command)
    assert (step.ordinal, step.path) == (0, "/v1/admin/found")
    assert step.body["members"] == [[o, incarnation(o)] for o in range(5)]
    assert step.body["layout"] == {"data_shards": 3, "parity_shards": 2}
    assert step.body["owner"] == f"distkv-operator/{CLUSTER_ID}"


def test_formed_is_recorded_before_it_is_submitted() -> None:
    told = tuple(seat(o, said(o, formed=False), claim=claim(o)) for o in range(5))
    observed = settled(*told, record=record(formed=False), status={})
    assert written(formation(observed)).formed
    found = formation(replace(observed, record=record()))
    command = found.steps[-1]
    assert isinstance(command, Command)
    assert command.path == "/v1/admin/formed"
    assert found.reason == "Forming"


def test_a_formed_cluster_says_formed_and_does_nothing() -> None:
    assert formation(settled()) == Formation("Formed", "the cluster is formed", (), record())


def test_claims_that_say_too_little_are_annotated() -> None:
    observed = settled(seat(2, claim=claim(2)))
    (step,) = formation(observed).steps
    assert isinstance(step, AnnotateClaim)
    assert step.uid == "claim-2"
    assert step.annotations["distkv.io/incarnation"] == "102"


def test_a_claim_that_is_not_the_members_is_not_annotated() -> None:
    assert formation(settled(seat(2, claim=claim(2, "another")))).steps == ()


# -- never again


def test_a_lost_status_changes_nothing() -> None:
    assert planned(settled(status={})).steps == planned(settled()).steps == ()


def test_a_lost_record_is_made_again_from_the_claims() -> None:
    made = written(formation(settled(record=None, status={})))
    assert made == record(version="")


def test_a_resource_that_is_applied_again_adopts_the_record() -> None:
    found = formation(settled(uid="another"))
    assert written(found) == record(resource="another")
    assert found.reason == "Adopting"


def test_another_deletion_policy_is_recorded_and_disturbs_nobody() -> None:
    observed = settled(spec={"deletionPolicy": "Delete"})
    found = formation(observed)
    assert written(found) == record(deletes_claims=True)
    assert found.reason == "Formed"
    assert condition(planned(observed), "Ready").status is True


def test_a_restored_api_server_with_an_older_record_adopts_what_the_nodes_say() -> None:
    """The record of a moment before `found`, and nodes that were formed since."""
    made = written(formation(settled(record=replace(BEGUN, version="9"))))
    assert made.formed
    assert made.members == record().members


def test_claims_of_the_name_without_a_word_hold() -> None:
    observed = settled(*(seat(o, SILENT, claim=claim(o)) for o in range(5)), record=None, status={})
    found = formation(observed)
    assert (found.reason, found.holds, found.steps) == ("UnknownClaims", True, ())
    assert planned(observed).steps == ()


def test_claims_of_two_clusters_hold() -> None:
    other = record(cluster_id="0" * 32)
    observed = settled(seat(1, claim=claim(1, of=other)), record=None, status={})
    assert formation(observed).reason == "UnknownClaims"


def test_an_annotation_that_is_no_number_is_no_member() -> None:
    found = claim(1, of=record())
    found["metadata"]["annotations"]["distkv.io/incarnation"] = "one"
    made = from_claims([(0, claim(0, of=record())), (1, found)], "uid-1")
    assert made is not None
    assert list(made.members) == [0]


def test_an_unreadable_record_holds_and_is_not_overwritten() -> None:
    observed = settled(record=None, record_fault="no members")
    assert (formation(observed).reason, planned(observed).steps) == ("RecordUnreadable", ())


def test_deleted_with_its_volumes_the_name_is_free() -> None:
    old = record(resource="gone", deletes_claims=True)
    made = written(formation(bare(record=old, status={})))
    assert made == Record(FRESH.cluster_id, "uid-1", version="1")


def test_deleted_with_its_volumes_while_they_are_still_there_is_adopted() -> None:
    made = written(formation(settled(record=record(resource="gone", deletes_claims=True))))
    assert made.formed
    assert made.cluster_id == CLUSTER_ID


# -- total loss


@pytest.mark.parametrize("kept", [record(), None], ids=["with record", "by the status alone"])
def test_all_volumes_gone_holds(kept: Record | None) -> None:
    observed = bare(record=kept)
    found = planned(observed)
    assert (found.formation.reason, found.formation.holds) == ("VolumesLost", True)
    assert found.steps == ()
    assert f"start-anew={CLUSTER_ID}" in condition(found, "Progressing").message
    assert condition(found, "Progressing").status is False


@pytest.mark.parametrize("kept", [record(), None], ids=["with record", "by the status alone"])
def test_starting_anew_has_to_name_the_cluster(kept: Record | None) -> None:
    key = "distkv.io/start-anew"
    assert formation(bare(record=kept, annotations={key: "f00"})).holds
    made = written(formation(bare(record=kept, annotations={key: CLUSTER_ID})))
    assert made.cluster_id != CLUSTER_ID
    assert not made.formed


def test_claims_made_since_do_not_hide_the_loss() -> None:
    seats: list[Seat] = [seat(o, unfounded(o), claim=claim(o, f"new-{o}")) for o in range(5)]
    observed = settled(*seats, layout_progress=None)
    found = planned(observed)
    assert found.formation.reason == "VolumesLost"
    assert taken(found.steps) == []
    assert not any(isinstance(step, Command) for step in found.steps)
    back = [seat(o, claim=claim(o, f"new-{o}", of=record())) for o in range(5)]
    assert formation(settled(*back)).reason == "Formed", "volumes put back on new claims"


# -- while it is being founded


def test_a_directory_made_anew_before_found_is_listed_anew() -> None:
    listed = record(formed=False, members=record().members | {3: Holder(999, "claim-3")})
    made = written(formation(starting(record=listed)))
    assert made.members[3].incarnation == incarnation(3)
    assert not made.formed


def test_a_directory_made_anew_after_found_holds() -> None:
    told = [seat(o, said(o, formed=False)) for o in range(1, 5)]
    observed = settled(seat(0, unfounded(0, incarnation=555)), *told, record=record(formed=False))
    found = formation(observed)
    assert (found.reason, found.holds, found.steps) == ("FoundersChanged", True, ())
    assert "node 0" in found.message


def test_nodes_of_another_cluster_are_not_ours() -> None:
    foreign = [seat(o, said(o, cluster="0" * 32)) for o in range(5)]
    assert formation(settled(*foreign)).reason == "WaitingForNodes"
