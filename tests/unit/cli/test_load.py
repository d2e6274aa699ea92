"""The load generator against a server that refuses."""

from __future__ import annotations

import asyncio

import pytest

from distkv.cli import load
from distkv.cli.load import Work, drive


def test_what_is_refused_is_not_counted_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WARM_SHARE", 0.0)
    answers = [b"+OK\r\n", b"-NOQUORUM no\r\n"]
    sent = [0, 0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in range(40):
            for _ in range(7):  # *3, $3, SET, $16, the key, $1, the value
                await reader.readuntil(b"\r\n")
            which = turn % 2
            writer.write(answers[which])
            sent[which] += 1
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server:
            # No time is measured: the server ends it after so many requests.
            result = await drive(Work(host, port, 1, 60.0, 1, 1))
        assert sent == [20, 20]
        assert result.acknowledged == 20
        assert result.errors == 20 + 1  # and the connection that was lost
        assert result.first_error == "NOQUORUM no"
        assert result.requests == 20

    asyncio.run(run())
