"""Known mistakes in changes of the layout: looked for where the owner wants other layouts."""

from __future__ import annotations

from typing import Any

from simulation.full import mutations_healing as healing
from simulation.full.mutating import Patch, mutation

from distkv.core.shared import Shared
from distkv.local.directory import Layout
from distkv.local.relayout import Relayout
from distkv.machine.commands import change_retire
from distkv.machine.membership import Membership
from distkv.member import layouts
from distkv.member.layouts import Epochs


@mutation
def old_epoch_accepted_at_apply(patch: Patch) -> None:
    """A put that was dispersed under an earlier layout takes effect under the newer one."""
    original = Membership.refusal

    def refusal(self: Membership, *arguments: Any) -> str:
        found = original(self, *arguments)
        return "" if found == "epoch" else found

    patch(Membership, "refusal", refusal)


@mutation
def retired_with_records_left(patch: Patch) -> None:
    """An old epoch ends as soon as there is a newer one."""

    def look(self: Epochs) -> None:
        membership = self._seat.machine.membership
        for epoch in sorted(membership.layouts):
            if epoch != membership.epoch and self._seat.replica.is_leader:
                self._seat.replica.propose_configuration(change_retire(membership.owner, epoch))
                self._seat.owner.poke()

    patch(Epochs, "look", look)
    original = Membership._retire

    def retire(self: Membership, slot: int, epoch: int) -> Any:
        self.records[epoch] = 0
        return original(self, slot, epoch)

    patch(Membership, "_retire", retire)


@mutation
def restriped_over_a_newer_value(patch: Patch) -> None:
    """Re-striping for a new layout compares nothing: it undoes what was written meanwhile."""
    healing.restriping_without_comparing(patch)


@mutation
def new_f_claimed_at_once(patch: Patch) -> None:
    """The status claims the new f before every record has k_e + f holders."""

    def failures_now(self: Epochs) -> int:
        return self._seat.machine.membership.configuration.failures

    patch(Epochs, "failures_now", failures_now)


@mutation
def votes_before_caught_up(patch: Patch) -> None:
    """A new node votes as soon as it is asked."""
    patch(Shared, "may_vote", lambda self: True)


@mutation
def surplus_leaves_before_retire(patch: Patch) -> None:
    """The owner takes the surplus nodes away as soon as the new layout is applied."""
    original = Relayout._finish

    async def finish(self: Relayout, seen: Any, wanted: Layout) -> None:
        await original(self, seen._replace(body=seen.body | {"changing": False}), wanted)

    patch(Relayout, "_finish", finish)


@mutation
def the_earlier_push_is_forgotten(patch: Patch) -> None:
    """An owner that turns back does not end what it asked for before."""
    original = Relayout.step

    async def step(self: Relayout) -> None:
        self._store(self._ownership._replace(pushed=None))
        await original(self)

    patch(Relayout, "step", step)


@mutation
def a_late_request_comes_true(patch: Patch) -> None:
    """The leader takes a request for a layout whatever epoch it follows."""
    original = layouts.change

    def change(*arguments: Any) -> bool:
        return original(*arguments[:6])

    patch(layouts, "change", change)


@mutation
def who_left_is_waited_for(patch: Patch) -> None:
    """Nodes that left with an older layout, and run yet, are to join again as they are."""

    async def joiner(self: Relayout, seen: Any, ordinal: int) -> int | None:
        for node in seen.body["waiting"]:
            if node["ordinal"] == ordinal and node["caught_up"] and not node["removed"]:
                return int(node["incarnation"])
        return None

    patch(Relayout, "_joiner", joiner)


@mutation
def records_counted_under_the_newest_epoch(patch: Patch) -> None:
    """A record that goes is counted off from the newest epoch, whichever it was of."""
    original = Membership.count

    def count(self: Membership, epoch: int, records: int, size: int) -> None:
        original(self, self.epoch if records < 0 else epoch, records, size)

    patch(Membership, "count", count)
