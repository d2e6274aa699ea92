"""Commands that reach a leader late, long after the transport could have delivered them.

Commands may be late without any bound (a process that stood still may hold them); sessions,
boots and barriers must bear it. In truth such a copy is one that its coordinator sent again, and
what it tells its client depends on that; so it is counted there if the coordinator lives on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.member.messages import Forward

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host


def echo(world: World, source: Host, batch: list[object], payload: bytes) -> bool:
    """Perhaps let `payload` reach whoever leads a while later, too.

    True: its coordinator dies as it sends it, and nothing else of it arrives.
    """
    if not world.faults.echo or not any(isinstance(message, Forward) for message in batch):
        return False
    if world.rng.random() >= world.faults.echo:
        return False
    sender, generation = source.name, source.generation

    def arrive() -> None:
        for host in world.hosts:
            if host.leads and not world.healing:
                host.receive(sender, payload)
                return

    world.after(world.rng.choice((0.01, 0.05, 0.2) if world.lists else (0.05, 0.5, 1.5)), arrive)
    if not world.faults.crash or world.rng.random() < 0.7:
        _count(source, batch)
        return False

    def die() -> None:
        if source.alive and source.generation == generation:
            world.halted(source, "it dies as it sends commands", 0.05)

    world.after(0.0, die)
    return True


def _count(source: Host, batch: list[object]) -> None:
    assert source.member is not None
    assert source.member.seat is not None
    sent = {c for message in batch if isinstance(message, Forward) for c in message.commands}
    for pending in source.member.seat.pending.undecided():
        if pending.command in sent:
            pending.copies += 1
