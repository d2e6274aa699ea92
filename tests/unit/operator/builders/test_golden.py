"""Whole manifests, as files to be read and compared."""

from __future__ import annotations

import pytest

from .golden import GOLDEN, situations, text


def test_there_is_a_file_for_each_situation_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(situations())


@pytest.mark.parametrize("name", sorted(situations()))
def test_manifests_are_as_recorded(name: str) -> None:
    recorded = (GOLDEN / f"{name}.yaml").read_text()
    assert text(*situations()[name]) == recorded, (
        "if that is meant: python tests/unit/operator/builders/golden.py"
    )
