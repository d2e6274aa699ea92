"""In which order the faults of one round begin and end."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
from chaos import campaign
from chaos.lab import Lab
from chaos.plan import Plan


class Quiet:
    """A cluster that is always well."""

    ordinals = (0, 1, 2, 3, 4)
    failures = 2

    def note_ends(self) -> None:
        """Nothing ended."""

    def settle(self) -> str:
        return ""


@pytest.mark.parametrize("names", [("outage", "cut"), ("cut", "outage")])
def test_an_outage_of_the_api_begins_last_and_ends_first(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """Else the other fault is drawn and undone without an API server: chaos of seed 103 took nine
    minutes over one round, and its policy stayed."""
    done: list[str] = []

    def fault(name: str, takes_api: bool) -> Any:
        def draw(lab: Lab, rng: random.Random, usable: frozenset[int]) -> Plan:
            done.append(f"draw {name}")
            begin, end = (
                (lambda: done.append(f"begin {name}")),
                (lambda: done.append(f"end {name}")),
            )
            return Plan(name, name, begin, end, hold=(0.0, 0.0), takes_api=takes_api)

        return draw

    monkeypatch.setattr(campaign, "CALM", (0.0, 0.0))
    monkeypatch.setattr(
        campaign, "TABLE", {"cut": fault("cut", False), "outage": fault("outage", True)}
    )
    run = campaign.Campaign(cast(Lab, Quiet()), 1, 0.0, names, say=lambda text: None)
    run._round(names)
    assert done[:2] == [f"draw {name}" for name in names]
    assert done[2:] == ["begin cut", "begin outage", "end outage", "end cut"]
