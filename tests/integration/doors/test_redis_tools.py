"""redis-cli and redis-benchmark, as people use them."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from integration.doors.support import FakeStore, resp_door, run

missing = [name for name in ("redis-cli", "redis-benchmark") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


async def call(*command: str, stdin: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(stdin)
    assert process.returncode == 0, output
    return output.decode()


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli(protocol: str) -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store) as door:
            cli = ("redis-cli", protocol, "-p", str(door.port))
            assert await call(*cli, "SET", "k", "v") == "OK\n"
            assert await call(*cli, "GET", "k") == "v\n"
            assert await call(*cli, "-x", "SET", "big", stdin=b"y" * 300_000) == "OK\n"
            assert await call(*cli, "STRLEN", "big") == "300000\n"
            assert "big" in await call(*cli, "--scan")
            assert "role:master" in await call(*cli, "INFO")
            assert "GET key." in await call(*cli, "COMMAND", "DOCS", "get")
            assert "mset" in await call(*cli, "COMMAND", "LIST")
            script = b"SET a 1\nINCR a\nTTL a\nNOPE\n"
            answers = (await call(*cli, stdin=script)).splitlines()
            assert answers[:3] == ["OK", "2", "-1"]
            assert "unknown command" in answers[3]
            piped = b"".join(b"SET p%d %d\r\n" % (i, i) for i in range(1000))
            assert "errors: 0, replies: 1000" in await call(*cli, "--pipe", stdin=piped)
            assert len(store.rows) == 1003

    run(body)


@pytest.mark.parametrize(
    "options",
    [
        "-t set,get -d 1024 -c 32 -n 4000",
        "-t set,get -d 64 -c 16 -n 8000 -P 16 -r 1000",
        "-t set,get -d 1000000 -c 8 -n 60",
        "-t ping,set,get,incr,mset -c 8 -n 1000 -3",
    ],
)
def test_redis_benchmark(options: str) -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store) as door:
            output = await call("redis-benchmark", "-p", str(door.port), *options.split(), "--csv")
            assert '"SET"' in output
            assert "rror" not in output
            assert sum(series.errors for series in door.metrics.series.values()) == 0

    run(body)
