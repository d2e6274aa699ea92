"""Small JSON requests to the processes of a local cluster, without an HTTP library.

The supervisor must be ready fast; the standard library's client in a thread is enough for
the few requests it makes.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any, NamedTuple

from distkv.local.ports import HOST

TIMEOUT_SECONDS = 2.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024


class Answer(NamedTuple):
    """`status` 0: nobody answered; then `body` is the reason."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """For people."""
        if isinstance(self.body, dict):
            return str(self.body.get("message") or self.body.get("error") or self.body)
        return str(self.body)


async def ask(
    port: int, method: str, path: str, body: Any = None, token: str | None = None
) -> Answer:
    """One request to a port of this machine; never raises for what the other side does."""
    return await asyncio.to_thread(_ask, port, method, path, body, token)


def _ask(port: int, method: str, path: str, body: Any, token: str | None) -> Answer:
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
    headers = {"Connection": "close"}
    if token is not None:
        headers["X-DistKV-Token"] = token
    raw = None
    if body is not None:
        raw = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        content = response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, str(error) or type(error).__name__)
    finally:
        connection.close()
    try:
        return Answer(response.status, json.loads(content) if content else None)
    except ValueError:
        return Answer(response.status, content.decode(errors="replace"))
