"""The gate's retries come at once: nothing in these tests waits for real time."""

from __future__ import annotations

import pytest

from distkv_operator.kube import gate


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PAUSE_SECONDS", 0.0)
