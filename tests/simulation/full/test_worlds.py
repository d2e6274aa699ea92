"""Worlds of whole nodes: nothing breaks, and the same seed is the same world."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.core_world.hunt import MISFITS
from simulation.full.mutations import MUTATIONS, installed, scenario
from simulation.full.refill import DIRECTED

from distkv.simulation import cli
from distkv.simulation.runner import Scenario, run, run_many, shrink

CHUNK = 15
CHUNKS = 8
LONG_CHUNK = 50
NODE = Path(__file__).parents[3] / "node"

QUICKLY_CAUGHT = (
    "a_majority_holds_it",
    "shard_acknowledged_before_flush",
    "piece_of_the_seat_instead_of_the_shard",
    "condition_not_checked_at_apply",
    "no_dedup",
    "reads_without_a_quorum",
    "superseded_shards_stay",
    "shard_index_not_rotated_back",
    "nothing_is_restriped",
    "restriping_changes_the_version",
    "rot_that_scrubbing_finds_is_not_mended",
    "retransmit_without_dedup",
    "nonce_reused",
    "replay_window_off",
    "lost_pieces_forgotten",
    "next_life_taken_for_the_last",
    "silence_not_noticed",
    "address_never_moves",
    "credit_not_respected",
    "old_epoch_accepted_at_apply",
    "retired_with_records_left",
    "votes_before_caught_up",
    "surplus_leaves_before_retire",
)


def broken(first: int, count: int, mutation: str = "") -> list[tuple[int, str]]:
    seeds = range(first, first + count)
    results = run_many([scenario(mutation, s) if mutation else Scenario(s) for s in seeds])
    assert all(r.calls or r.error for r in results), "a world without client calls proves nothing"
    assert not any(r.error.startswith(MISFITS) for r in results), "a mutation of code of long ago"
    return [(r.scenario.seed, r.error) for r in results if r.error]


def pinned(seed: int) -> list[tuple[int, str]]:
    """A seed that broke something when no owner changed the layout yet, or made repair slow."""
    error = run(Scenario(seed, without=("slow_repair",), layouts=False))[0].error
    return [(seed, error)] if error else []


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_world_breaks(chunk: int) -> None:
    assert broken(1 + chunk * CHUNK, CHUNK) == []


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chunk", range(20))
def test_no_world_breaks_in_a_long_campaign(chunk: int) -> None:
    assert broken(100_000 + chunk * LONG_CHUNK, LONG_CHUNK) == []


def test_a_node_that_lags_does_not_say_how_many_disks_may_be_lost() -> None:
    """Seed that once failed: node 3 was back, and knew of no coded value yet."""
    assert pinned(400_018) == []


def test_a_read_of_many_keys_waits_until_a_rotten_row_is_mended() -> None:
    """Seed that once failed: it was refused, where a read of one key waits."""
    assert broken(6_305_633, 1) == []


def test_a_read_is_not_told_that_nobody_has_a_row_while_peers_were_not_asked() -> None:
    """Seed that once failed: the peer that was asked had crashed, and was waited for."""
    assert broken(6_702_074, 1) == []


def test_what_is_rotten_already_does_not_rot_on_where_nothing_is_spare() -> None:
    """Seed that once failed, by mistake of the faults: a value put while f was 0 rotted on a
    disk that had rotted before, when two were allowed to."""
    assert broken(6_706_515, 1) == []


def test_what_is_over_by_log_time_goes_though_the_leaders_clock_is_behind() -> None:
    """Seed that once failed: a clock had jumped ahead, and its node led no more."""
    assert broken(6_707_241, 1) == []


def test_a_cluster_is_calm_once_everybody_heard_that_disks_have_space() -> None:
    """Seed that once failed, by mistake of the checker: no disk may be full where f is 0, and
    some nodes had not heard yet that they were not."""
    assert broken(268, 1) == []


def test_a_restored_disk_that_knows_of_it_is_not_started_again() -> None:
    """Seed that once failed, by mistake of the faults: its node crashed right after it was
    told, and started as if its directory could be used."""
    assert broken(6_707_942, 1) == []


def test_coding_anew_is_tried_again_when_a_member_dropped_its_piece() -> None:
    """Seed that once failed: node 1 had no seat yet, and was waited for for two minutes."""
    assert broken(6_835_266, 1) == []


def test_a_snapshot_from_when_the_cluster_was_one_node_is_not_gone_back_to() -> None:
    """Seed that once failed, by mistake of the faults: node 0 was a quorum by itself then, so it
    led again before anybody could tell it (README, "A disk is lost")."""
    assert broken(6_800_819, 1) == []


def test_a_node_that_heard_late_does_not_take_what_is_old_for_young() -> None:
    """Seed that once failed: node 1 had been cut off, and lacked a shard it had yet to miss."""
    assert broken(6_081_084, 1) == []


def test_nodes_with_other_rotten_rows_each_mend_each_other() -> None:
    """Seed that once failed: the only two that were up to date waited for each other's whole
    state, and all others for one of them."""
    assert broken(6_881_568, 1) == []


def test_a_restored_disk_that_is_taken_away_is_not_waited_for() -> None:
    """Seed that once failed, by mistake of the checker: its node left with the layout before it
    was started again."""
    assert broken(6_900_518, 1) == []


@pytest.mark.parametrize("seed", [2_001_289, 2_002_096])
def test_a_put_that_is_late_for_its_shards_is_refused(seed: int) -> None:
    """Seeds that once failed, by mistake of the checker: see test_checker."""
    assert pinned(seed) == []


@pytest.mark.parametrize("seed", [2_000_592, 2_002_612])
def test_an_append_that_was_sent_again_is_done_once(seed: int) -> None:
    """Seeds that once failed: between two copies of an append to a coded value it was deleted,
    the second copy was applied, and so was what the coordinator had computed from the value."""
    assert pinned(seed) == []


def test_a_session_that_ended_before_it_was_known_to_be_open_is_not_called_a_bad_request() -> None:
    """Seed that once failed: the answer to the opening was lost, then the clock jumped."""
    assert pinned(2_001_507) == []


def test_one_node_at_least_keeps_whole_metadata() -> None:
    """Seed that once failed: other records were damaged on either of two nodes, so neither had
    a state to give. That is beyond what is promised, see simulation.rotting."""
    assert pinned(185) == []


def digest(hash_seed: str) -> dict[str, object]:
    command = [sys.executable, "-m", "distkv.simulation.cli", "--seeds", "4", "--json"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(NODE)}
    done = subprocess.run(
        [*command, "--first", "7", "--jobs", "1"], env=environment, capture_output=True, check=True
    )
    summary = json.loads(done.stdout)
    assert isinstance(summary, dict)
    for timing in ("worlds_per_second", "virtual_hours_per_hour"):
        del summary[timing]
    return summary


def test_the_same_seeds_give_the_same_digest_whatever_the_hash_seed() -> None:
    first = digest("1")
    assert first["worlds"] == 4
    assert first == digest("2")


@pytest.mark.parametrize("name", QUICKLY_CAUGHT)
def test_quick_mutations_are_caught(name: str) -> None:
    with installed(name):
        assert broken(1, 60, name), f"{name} is not caught in 60 worlds"


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_change_what_is_there(name: str) -> None:
    """One that patches a name of long ago would be found by the long campaigns only."""
    with installed(name):
        pass


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [n for n in MUTATIONS if n not in (*QUICKLY_CAUGHT, *DIRECTED)])
def test_every_mutation_is_caught(name: str) -> None:
    with installed(name):
        assert broken(1, 400, name), f"{name} is not caught in 400 worlds"


def test_a_broken_world_is_shrunk_to_a_smaller_one_that_breaks_too() -> None:
    with installed("shard_acknowledged_before_flush"):
        scenario = next(s for s in map(Scenario, range(1, 60)) if run(s)[0].error and s.kinds())
        smaller = shrink(scenario, tries=12)
        assert run(smaller)[0].error
    assert len(smaller.without) > 0 or smaller.clients is not None
    assert run(smaller)[0].error == ""


def test_the_command_reports_a_failure_and_how_to_replay_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with installed("shard_acknowledged_before_flush"):
        arguments = ["--seeds", "60", "--jobs", "1", "--json", "--no-shrink"]
        assert cli.main(arguments) == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary["failed_seed"] == summary["worlds"]
    assert summary["replay"] == f"distkv simulate --seed {summary['failed_seed']} --trace"


def test_the_command_prints_a_trace_and_refuses_unknown_faults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--seed", "3", "--trace", "--duration", "0.5", "--without", "rot,wipe"]) == 0
    shown = capsys.readouterr().out
    assert "formed" in shown
    assert "converged" in shown
    assert "nothing broke" in shown
    with pytest.raises(SystemExit) as refused:
        cli.main(["--without", "gremlins"])
    assert refused.value.code == 2
    assert "no fault is called gremlins" in capsys.readouterr().err
