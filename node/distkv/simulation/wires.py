"""What goes wrong between machines where the production transport runs, besides each datagram's
own fate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.simulation.hubs import HubNetwork

if TYPE_CHECKING:
    from distkv.simulation.full_world import World


class Wires:
    """Each method does one thing wrong now."""

    def __init__(self, world: World, network: HubNetwork) -> None:
        self._world = world
        self._datagrams = network.datagrams
        self._rng = network.rng

    def _any(self) -> int:
        return self._rng.randrange(len(self._datagrams.addresses))

    def clog(self) -> None:
        """A link, or all links to one machine, carry little for a while."""
        datagrams, rng, world = self._datagrams, self._rng, self._world
        target, rate = self._any(), rng.choice((20e3, 100e3, 500e3))
        sources = range(len(datagrams.addresses)) if rng.random() < 0.5 else [self._any()]
        links = [(source, target) for source in sources if source != target]
        world.note(f"links {links} carry {rate:.0f} bytes per second")
        for link in links:
            datagrams.clogged[link] = rate

        def heal() -> None:
            for link in links:
                datagrams.clogged.pop(link, None)

        world.after(rng.choice((0.3, 1.5)), heal)

    def play_again(self, ordinal: int) -> None:
        """What a machine sent arrives again and again."""
        self._world.note(f"somebody plays again what node {ordinal} sent")
        self._datagrams.play_again_from(ordinal, self._rng.choice((1.0, 2.5)))

    def noise(self) -> None:
        """Bytes from nowhere."""
        for _ in range(self._rng.randrange(1, 20)):
            self._datagrams.noise(self._any())

    def move(self) -> None:
        """A running machine gets another address: what is sent to the old one is lost."""
        ordinal = self._any()
        self._world.note(f"node {ordinal} moves to another address")
        self._datagrams.move(ordinal)
