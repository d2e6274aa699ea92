"""The transport in worlds of whole nodes, and the checker of what it promises."""

from __future__ import annotations

import pytest

from distkv.simulation.datagrams import Datagram
from distkv.simulation.full_faults import CALM
from distkv.simulation.full_world import Violation, World
from distkv.simulation.hubs import HubNetwork
from distkv.simulation.runner import Scenario, run

ELSEWHERE = (-1, 0)


def relayed(world: World, source: int, target: int) -> list[Datagram]:
    """What `source` sends to `target` from now on is withheld; whoever calls may deliver it.

    What `target` sends to ELSEWHERE reaches `source`.
    """
    network = world.network
    assert isinstance(network, HubNetwork)
    datagrams = network.datagrams
    datagrams.cut.add((source, target))
    withheld: list[Datagram] = []
    post = datagrams.post

    def posted(sender: int, address: tuple[int, int], body: bytes) -> int:
        number = post(sender, address, body)
        if (sender, address[0]) == (source, target):
            withheld.append(Datagram(number, datagrams.address(sender), address, body))
        if (sender, address) == (target, ELSEWHERE):
            back = Datagram(number, datagrams.address(sender), datagrams.address(source), body)
            world.after(0.001, lambda: network._arrive(back))
        return number

    datagrams.post = posted  # type: ignore[method-assign]
    return withheld


def calm_world() -> World:
    world = World(1, geometry=(2, 1), faults=CALM, transport=True, layouts=False)
    world.begin()
    return world


def test_a_peer_is_alive_wherever_its_newest_datagrams_come_from() -> None:
    world = calm_world()
    network = world.network
    assert isinstance(network, HubNetwork)
    session = network._lines[1].hub._peers[0].session
    withheld = relayed(world, 0, 1)

    def deliver() -> None:
        for datagram in withheld:
            network._arrive(datagram._replace(source=ELSEWHERE))
        withheld.clear()
        world.after(0.05, deliver)

    deliver()
    world.run_until(lambda: False, 5.0)
    assert session is not None
    assert network._lines[1].hub._peers[0].session is session


def test_who_holds_on_to_a_peer_of_which_only_old_datagrams_come_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = calm_world()
    network = world.network
    assert isinstance(network, HubNetwork)
    withheld = relayed(world, 0, 1)
    world.run_until(lambda: len(withheld) > 8, 0.5)
    old = withheld[:8]
    network._arrive(withheld[-1])
    network.checker.look(network._lines[1].hub)
    session = network._lines[1].hub._peers[0].session
    assert session is not None
    monkeypatch.setattr(session, "on_timer", lambda now, heard=True: None)
    for datagram in old:
        world.after(0.2 * old.index(datagram), lambda d=datagram: network._arrive(d))
    with pytest.raises(Violation, match="node 1 holds on to node 0"):
        world.run_until(lambda: False, 5.0)


@pytest.mark.parametrize("seed", [2_001_804, 2_001_929, 2_002_209])
def test_a_datagram_that_was_held_back_is_no_sign_of_life(seed: int) -> None:
    """Seeds that once failed: somebody played again what had been lost, after newer ones."""
    assert run(Scenario(seed, without=("slow_repair",), layouts=False))[0].error == ""


def test_credit_comes_back_before_the_largest_message_has_no_room() -> None:
    """Seed that once failed: four of eight bulk lanes of a calm cluster stood still."""
    assert run(Scenario(7_000_004, transport=True, layouts=False))[0].error == ""
