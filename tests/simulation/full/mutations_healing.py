"""Known mistakes in re-striping, scrubbing and healing."""

from __future__ import annotations

from typing import Any

from simulation.full.mutating import Patch, mutation

from distkv.data import plane, restripe, scrub
from distkv.machine import commands, writes
from distkv.machine.records import coded_record
from distkv.member import overview, restriping


@mutation
def restriping_without_comparing(patch: Patch) -> None:
    """The value that was coded anew takes the key's place, whatever was written meanwhile."""

    def effect(draft: Any, mutation_: Any) -> object:
        old = draft.get(mutation_[1])
        if old is None or old.value_id is None:
            raise writes._Stop(writes.OutcomeKind.CONDITION, None)
        draft.set(
            mutation_[1],
            coded_record(old.version, old.expires_ms, draft.slot, mutation_[3:]),
        )
        return old.version

    patch(writes, "_EFFECTS", {**writes._EFFECTS, commands.RESTRIPE: effect})


@mutation
def restriping_changes_the_version(patch: Patch) -> None:
    """A value that was coded anew counts as another version."""
    original = writes._restripe

    def effect(draft: Any, mutation_: Any) -> object:
        original(draft, mutation_)
        record = draft.get(mutation_[1])
        draft.set(mutation_[1], record._replace(version=draft.next_version()))
        return record.version

    patch(writes, "_EFFECTS", {**writes._EFFECTS, commands.RESTRIPE: effect})


@mutation
def old_shards_dropped_when_restriping_is_asked_for(patch: Patch) -> None:
    """The coordinator drops its old shard as it sends the command, not when it is applied."""
    original = restriping.submit

    def submit(seat: Any, key: bytes, old: Any, dispersed: Any, deadline: float) -> Any:
        shelf = seat.data.keeper.shelf
        shard = shelf.find(old)
        if shard is not None:
            shelf.remove(old, shard)
        return original(seat, key, old, dispersed, deadline)

    patch(restriping, "submit", submit)


@mutation
def nothing_is_restriped(patch: Patch) -> None:
    """Values written while members were down stay as they are."""
    patch(restripe.Restriper, "improves", lambda self, record: False)


@mutation
def restriped_values_settle_for_less(patch: Patch) -> None:
    """A value that is coded anew gets one data shard less than it could."""
    original = restripe.Restriper._most

    def most(self: Any) -> int:
        return max(1, original(self) - 1) if original(self) else 0

    patch(restripe.Restriper, "_most", most)


@mutation
def rot_that_scrubbing_finds_is_not_mended(patch: Patch) -> None:
    """It is counted, and that is all."""
    patch(plane.DataPlane, "_on_rot", lambda self, table, key, unreadable: None)


@mutation
def scrubbing_takes_rot_for_sound(patch: Patch) -> None:
    """A row that cannot be read counts as one that is not there."""

    def look(self: Any, table: Any, key: bytes) -> int:
        return len(key)

    patch(scrub.Scrubber, "_look", look)


@mutation
def budget_not_counting_unfilled_disks(patch: Patch) -> None:
    """A member that is back counts as whole, whatever shards it still lacks."""
    original = overview.survival

    def survives(newest: Any, coded: Any, standings: Any, settled: int) -> Any:
        whole = {member: s._replace(missing=0) for member, s in standings.items()}
        return original(newest, coded, whole, settled)

    patch(overview, "survival", survives)
