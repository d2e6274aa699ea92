"""What a client is granted of memory that is short, and what becomes of the rest."""

from __future__ import annotations

from distkv.api.budget import Allowance, MemoryBudget


def test_one_grant_is_for_several_commands_of_a_pipeline() -> None:
    budget, woken = MemoryBudget(100), []
    budget.take(100)
    allowance = Allowance(budget, lambda: woken.append(budget.used))
    assert not allowance.spend(10)
    allowance.wait(10, 3, 0.0)
    allowance.wait(10, 3, 0.0)
    assert not woken
    budget.give(5)
    assert woken == [125]
    for left in (115, 105, 95):
        assert allowance.spend(10)
        assert budget.used == left
    assert not allowance.spend(10)


def test_a_grant_is_bounded() -> None:
    budget = MemoryBudget(100)
    budget.take(100)
    allowance = Allowance(budget, lambda: None)
    allowance.wait(1, 1000, 0.0)
    budget.give(100)
    assert budget.used == Allowance.TOGETHER


def test_what_is_not_spent_goes_to_the_next_in_the_queue() -> None:
    budget, woken = MemoryBudget(100), []
    budget.take(100)
    first, second = (Allowance(budget, lambda name=name: woken.append(name)) for name in "ab")
    first.wait(60, 1, 0.0)
    second.wait(60, 1, 0.0)
    budget.give(50)
    assert woken == ["a"], "the limit is passed already"
    first.spend(60)
    assert woken == ["a"], "what begins takes it again"
    first.give_back()
    assert woken == ["a", "b"], "it took nothing, and nobody else would give anything back"
    second.close()
    assert budget.used == 50


def test_who_left_the_queue_is_granted_nothing() -> None:
    budget, woken = MemoryBudget(100), []
    budget.take(100)
    allowance = Allowance(budget, lambda: woken.append(1))
    allowance.wait(60, 1, 0.0)
    allowance.close()
    budget.give(100)
    assert (woken, budget.used) == ([], 0)


def test_who_waited_too_long_leaves_the_queue() -> None:
    budget, woken = MemoryBudget(100), []
    budget.take(100)
    allowance = Allowance(budget, lambda: woken.append(1))
    assert not allowance.gave_up(99.0, 10.0), "it waits for nothing"
    allowance.wait(60, 1, 5.0)
    assert not allowance.gave_up(15.0, 10.0)
    assert allowance.gave_up(15.1, 10.0)
    budget.give(100)
    assert woken == []
    budget.take(100)
    allowance.wait(60, 1, 20.0)
    budget.give(50)
    assert woken == [1], "it may wait again"
