"""Known mistakes of a whole node, each a small patch. The simulator must catch them all.

`MUTATIONS[name](patch)` installs one; `patch(owner, attribute, replacement)` is undone later.
Those of the consensus core alone are in `simulation.core_world.mutations`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.full import mutations_healing as healing
from simulation.full import mutations_layouts as layouts
from simulation.full import mutations_state as state
from simulation.full import mutations_transport as transport
from simulation.full.mutating import MUTATIONS, Patch, installed, mutation, scenario

from distkv.coding.checksum import checksum
from distkv.core import leader as leader_module
from distkv.core.messages import Accept
from distkv.data import repair
from distkv.data.attempt import Attempt, State
from distkv.data.disperser import Disperser
from distkv.data.grace import Grace
from distkv.data.judge import Verdict, judge
from distkv.data.plane import DataPlane
from distkv.data.shards import ShardKeeper
from distkv.ids import ZERO_BALLOT
from distkv.machine import commands as machine_commands
from distkv.machine import writes
from distkv.machine.membership import Membership
from distkv.member.seat import Seat
from distkv.member.writing import Writer
from distkv.simulation.disk import named_values

__all__ = ["MUTATIONS", "healing", "installed", "layouts", "scenario", "state", "transport"]


# -- dispersal -------------------------------------------------------------------------------


def _needs(patch: Patch, count: Callable[[int, Any], int]) -> None:
    """Holders that suffice, for the coordinator and at apply."""
    patch(Attempt, "need", property(lambda self: count(self.code.data_shards, self.configuration)))
    original = Membership.refusal

    def refusal(self: Membership, value_id: Any, k: int, epoch: int, holders: Any) -> str:
        found = original(self, value_id, k, epoch, holders)
        enough = len(holders) // 2 >= count(k, self.configuration)
        return "" if found == "holders" and enough else found

    patch(Membership, "refusal", refusal)


@mutation
def a_majority_holds_it(patch: Patch) -> None:
    """A value counts as safe on a majority, whatever k_e is."""
    _needs(patch, lambda k, configuration: configuration.size // 2 + 1)


@mutation
def one_holder_too_few(patch: Patch) -> None:
    """k_e + f - 1 durable shards are taken to be enough."""

    _needs(patch, lambda k, configuration: max(1, k + configuration.failures - 1))


@mutation
def shard_acknowledged_before_flush(patch: Patch) -> None:
    """A holder acknowledges what is in its page cache only."""
    original = Seat.turn_ended

    def turn_ended(self: Seat, out: Any) -> None:
        before = len(out.messages_after_flush)
        original(self, out)
        out.messages += out.messages_after_flush[before:]
        del out.messages_after_flush[before:]

    patch(Seat, "turn_ended", turn_ended)


@mutation
def own_shard_counted_before_flush(patch: Patch) -> None:
    """The coordinator counts its own shard as soon as it is written."""
    original = DataPlane.drain

    def drain(self: DataPlane, turn: int) -> Any:
        drained = original(self, turn)
        while self._own_stored:
            self.disperser.on_stored(self.own, self._own_stored.popleft()[1])
        return drained

    patch(DataPlane, "drain", drain)


@mutation
def dispersed_again_under_the_same_id(patch: Patch) -> None:
    """A hedged attempt, or one after a refusal, keeps the value id."""
    original = Disperser.begin

    def reusing(self: Disperser, dispersal: Any, source: Any, data_shards: int) -> Attempt:
        highest = self._counter
        if hasattr(dispersal, "first_counter"):
            self._counter = dispersal.first_counter - 1
        attempt = original(self, dispersal, source, data_shards)
        dispersal.first_counter = attempt.value_id.counter
        self._counter = max(highest, self._counter)
        return attempt

    patch(Disperser, "begin", reusing)


@mutation
def late_acknowledgement_counted(patch: Patch) -> None:
    """An acknowledgement of an attempt that was given up counts for the present one."""
    begun = Disperser.begin
    stored = Disperser.on_stored

    def begin(self: Disperser, dispersal: Any, source: Any, data_shards: int) -> Attempt:
        attempt = begun(self, dispersal, source, data_shards)
        self.__dict__.setdefault("every", {})[attempt.value_id] = dispersal
        return attempt

    def on_stored(self: Disperser, sender: Any, message: Any) -> None:
        stored(self, sender, message)
        dispersal = self.__dict__.get("every", {}).get(message.value_id)
        if dispersal is not None and dispersal.attempts:
            attempt = dispersal.attempts[-1]
            target = attempt.targets.get(sender.ordinal)
            if target is not None and target.state is not State.STORED:
                target.state = State.STORED
                dispersal.on_stored(attempt, target)

    patch(Disperser, "begin", begin)
    patch(Disperser, "on_stored", on_stored)


@mutation
def piece_of_the_seat_instead_of_the_shard(patch: Patch) -> None:
    """The pieces are not turned with the shard numbers."""
    original = Attempt.piece

    def piece(self: Attempt, target: Any) -> Any:
        made = original(self, target)
        if made is None or made.stripe not in self._encoded:
            return made
        wrong = self._encoded[made.stripe][target.member.ordinal]
        if len(wrong) != len(made.piece):
            return made
        return made._replace(piece=wrong, crc=checksum(wrong))

    patch(Attempt, "piece", piece)


@mutation
def shard_index_not_rotated_back(patch: Patch) -> None:
    """Repair rebuilds the shard of the seat's number."""
    patch(repair, "shard_of", lambda ordinal, value_id, size: ordinal)


@mutation
def any_incarnation_holds_it(patch: Patch) -> None:
    """An acknowledgement of whoever sits there now counts, and a directory made anew too."""

    original = Attempt.stored

    def stored(self: Attempt, member: Any, shard: int) -> Any:
        target = self.targets.get(member.ordinal)
        return None if target is None else original(self, target.member, shard)

    patch(Attempt, "stored", stored)
    reachable = Disperser.reachable

    def all_connected(self: Disperser) -> Any:
        configuration, _ = reachable(self)
        own = self._coordinator.member
        up = [m.ordinal for m in configuration.members if m == own or m.ordinal in self._peers]
        return configuration, tuple(up)

    patch(Disperser, "reachable", all_connected)


# -- what a put must satisfy at apply ----------------------------------------------------------


@mutation
def ballot_checked_at_propose_only(patch: Patch) -> None:
    """At apply the barrier is not looked at any more."""
    original = writes._refusal

    def refusal(mutations: Any, barrier: Any, membership: Any, keyspace: Any) -> str:
        return original(mutations, ZERO_BALLOT, membership, keyspace)

    patch(writes, "_refusal", refusal)


@mutation
def barrier_skipped(patch: Patch) -> None:
    """A new leader begins with a no-op: nothing is ever ruled out by an election."""
    patch(
        leader_module.entries, "barrier", lambda stamp, ballot: machine_commands.entry_noop(stamp)
    )


def _without_refusal(patch: Patch, reason: str) -> None:
    original = Membership.refusal

    def refusal(self: Membership, *arguments: Any) -> str:
        found = original(self, *arguments)
        return "" if found == reason else found

    patch(Membership, "refusal", refusal)


@mutation
def boot_not_checked_at_apply(patch: Patch) -> None:
    """A put of an earlier boot takes effect after the new one was announced."""
    _without_refusal(patch, "boot")


@mutation
def settles_what_is_undecided(patch: Patch) -> None:
    """The settled mark passes values under way, and no put is refused for it."""
    patch(Disperser, "settled_counter", property(lambda self: self._counter + 1))
    _without_refusal(patch, "settled")


@mutation
def condition_not_checked_at_apply(patch: Patch) -> None:
    """Compare-and-set sets."""
    patch(writes, "_meets", lambda record, must, version: True)


# -- dropping shards ---------------------------------------------------------------------------


@mutation
def shards_dropped_on_reconnect(patch: Patch) -> None:
    """A new boot seen on a connection is taken for word that earlier values are dead."""
    original = DataPlane.peer_up

    def peer_up(self: DataPlane, member: Any) -> None:
        original(self, member)
        keeper = self.keeper
        for value_id, shard in list(keeper.shelf.shards.items()):
            if value_id.incarnation == member.incarnation and not shard.named:
                keeper._drop(value_id)

    patch(DataPlane, "peer_up", peer_up)


@mutation
def shards_dropped_on_timeout(patch: Patch) -> None:
    """A coordinator whose client gave up tells the holders to drop the value."""

    def let_go(self: Writer, dispersals: Any) -> None:
        for dispersal in dispersals.values():
            if not dispersal.closed:
                dispersal.abandon()

    patch(Writer, "_let_go", let_go)


@mutation
def shards_dropped_before_apply(patch: Patch) -> None:
    """The old value goes when the entry that supersedes it is accepted, not when applied."""
    original = Seat.receive

    def receive(self: Seat, peer: Any, message: Any) -> None:
        if isinstance(message, Accept):
            for entry in message.entries:
                for key, _ in named_values(entry):
                    record = self.machine.record(key)
                    if record is not None and record.value_id is not None:
                        keeper = self.data.keeper
                        shard = keeper.shelf.find(record.value_id)
                        if shard is not None:
                            keeper.shelf.forget(record.value_id)
                            keeper.shelf.delete_rows(record.value_id, shard.header.stripes)
        original(self, peer, message)

    patch(Seat, "receive", receive)


@mutation
def shards_dropped_after_a_while(patch: Patch) -> None:
    """Whatever no record names yet is garbage after half a second."""
    original = ShardKeeper.receive

    def receive(self: ShardKeeper, sender: Any, piece: Any, stripes: int = 0) -> None:
        original(self, sender, piece, stripes)

        def collect() -> None:
            shard = self.shelf.shards.get(piece.value_id)
            if shard is not None and not shard.named:
                self._drop(piece.value_id)

        self._grace._kernel.call_at(self._grace._kernel.now + 0.5, collect)

    patch(ShardKeeper, "receive", receive)


@mutation
def nothing_is_swept(patch: Patch) -> None:
    """What the applied state rules out is never dropped."""
    patch(ShardKeeper, "_sweep", lambda self: None)


@mutation
def nothing_is_settled(patch: Patch) -> None:
    """Coordinators never say which values are decided."""
    patch(Seat, "_owe_settled", lambda self, now: None)


@mutation
def superseded_shards_stay(patch: Patch) -> None:
    """The grace of a superseded value never begins, so it never ends."""
    patch(Grace, "add", lambda self, value_id: None)


@mutation
def superseded_shards_forgotten_at_restart(patch: Patch) -> None:
    """After a restart only shards that may still be named are remembered."""
    original = ShardKeeper._load_one

    def load_one(self: ShardKeeper, value_id: Any, header: Any) -> None:
        if judge(self._applied, value_id, header.stamp, header.epoch) is not Verdict.RULED_OUT:
            original(self, value_id, header)

    patch(ShardKeeper, "_load_one", load_one)


@mutation
def no_repair(patch: Patch) -> None:
    """Shards that did not arrive stay missing."""
    patch(repair.Repairer, "lacking", lambda self, value_id, record: [])
