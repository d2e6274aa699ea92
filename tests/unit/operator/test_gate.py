"""The gate: retries, preconditions, what counts as an answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from distkv_operator.kube import gate as gate_module
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import POD, SECRET
from distkv_operator.kube.transport import Request, Response, Unreachable


class Script:
    """Answers in order; the last one for ever."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None: ...


def answer(status: int, reason: str = "", **headers: str) -> Response:
    body = json.dumps({"reason": reason, "message": reason, "metadata": {"name": "x"}}).encode()
    return Response(status, headers, body)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "PAUSE_SECONDS", 0.0)


def test_what_nobody_answered_is_asked_again_and_counted() -> None:
    counted: list[tuple[str, str, int]] = []
    script = Script(Unreachable("refused"), answer(503), answer(200))
    gate = Gate(script, lambda *what: counted.append(what))
    assert asyncio.run(gate.get(POD, "test", "x")) is not None
    assert counted == [("GET", "pods", 0), ("GET", "pods", 503), ("GET", "pods", 200)]


def test_it_gives_up_after_a_few_attempts() -> None:
    script = Script(Unreachable("refused"))
    with pytest.raises(ApiError, match="refused"):
        asyncio.run(Gate(script).get(POD, "test", "x"))
    assert len(script.asked) == gate_module.ATTEMPTS


def test_a_refusal_is_not_repeated() -> None:
    script = Script(answer(403, "Forbidden"))
    with pytest.raises(ApiError, match="Forbidden"):
        asyncio.run(Gate(script).get(POD, "test", "x"))
    assert len(script.asked) == 1


def test_retry_after_is_honoured_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    script = Script(answer(429, **{"retry-after": "2"}), answer(429, **{"retry-after": "900"}),
                    answer(200))  # fmt: skip
    asyncio.run(Gate(script).get(POD, "test", "x"))
    assert slept == [2.0, gate_module.PAUSE_SECONDS_MAX]


def test_absent_and_present_are_answers() -> None:
    assert asyncio.run(Gate(Script(answer(404, "NotFound"))).get(POD, "test", "x")) is None
    secret = {"apiVersion": "v1", "kind": SECRET.name, "metadata": {"name": "x"}}
    assert asyncio.run(Gate(Script(answer(409, "AlreadyExists"))).create(secret)) is None


def test_a_deletion_names_the_object_it_was_decided_for() -> None:
    script = Script(answer(409, "Conflict"))
    assert not asyncio.run(Gate(script).delete(POD, "test", "x", "uid-1", grace=0))
    assert json.loads(script.asked[0].body or b"") == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "uid-1"},
        "propagationPolicy": "Background",
        "gracePeriodSeconds": 0,
    }
