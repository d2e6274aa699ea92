"""Every story still goes as it is told; see story.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios.story import play, stories


@pytest.mark.parametrize("path", stories(), ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    told = path.read_text()
    assert play(told) == told, "read the difference, then story.py --rewrite"


def test_there_are_stories() -> None:
    assert len(stories()) >= 20
