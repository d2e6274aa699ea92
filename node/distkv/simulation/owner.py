"""The owner of a simulated cluster: admits a new directory in place of one that was lost.

Protocol section 5: the joiner has caught up as a learner before it is proposed, every other
member is a caught-up voter or known to have failed, and q1 voters are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.machine.commands import change_replace

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

EVERY = 0.2
BEHIND_MAX = 3
"""Slots that a caught-up node may lack."""


class Owner:
    """Looks after lost disks, if the world has such an owner."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self) -> None:
        """Begin; runs for ever."""
        if self._world.owner_replaces:
            self._look()

    def _look(self) -> None:
        leader = next((host for host in self._world.hosts if host.leads), None)
        if leader is not None:
            for ordinal in self._world.wiped:
                if self._replace(leader, self._world.hosts[ordinal]):
                    break
        self._world.after(EVERY, self._look)

    def _replace(self, leader: Host, joiner: Host) -> bool:
        machine = leader.machine
        configuration = machine.configuration
        seated = configuration.members[joiner.ordinal]
        if seated.incarnation == joiner.incarnation or not self._caught_up(joiner, leader):
            return False
        others = [
            host
            for host in self._world.hosts
            if host is not joiner
            and self._caught_up(host, leader)
            and configuration.is_voter(host.member.identity.member)  # type: ignore[union-attr]
        ]
        if len(others) < configuration.phase_one:
            return False
        change = change_replace("owner", joiner.ordinal, seated.incarnation, joiner.incarnation)
        assert leader.member is not None
        assert leader.member.seat is not None
        if leader.member.seat.replica.propose_configuration(change):
            self._world.note(f"the owner admits the new directory of node {joiner.ordinal}")
            leader.wake()
        return True

    @staticmethod
    def _caught_up(host: Host, leader: Host) -> bool:
        if not host.alive or host.member is None or host.member.seat is None:
            return False
        return host.machine.applied + BEHIND_MAX >= leader.machine.applied
