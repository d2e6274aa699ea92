"""`distkv gateway` as a process, before a link of this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from integration.doors.support import NO_RETRY, FakeStore, run, session_of, until

from distkv.api.link.server import LinkServer
from distkv.api.options import LinkOptions

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def started(
    directory: Path, document: dict[str, Any]
) -> AsyncIterator[asyncio.subprocess.Process]:
    config = directory / "gateway.json"
    config.write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "distkv", "gateway", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "node"), "PATH": ""},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def configuration(link: int, resp: int, http: int, token: Path | None) -> dict[str, Any]:
    gateway: dict[str, Any] = {"nodes": [f"127.0.0.1:{link}"], "probe": 0.05}
    if token is not None:
        gateway["token_file"] = str(token)
    return {
        "listen": {"resp": f"127.0.0.1:{resp}", "http": f"127.0.0.1:{http}"},
        "gateway": gateway,
        "logging": {"resources": 1},
    }


def test_doors_metrics_and_a_clean_stop(tmp_path: Path) -> None:
    async def body() -> None:
        token = tmp_path / "token"
        token.write_text("secret\n")
        store = FakeStore()
        store.info["serving"] = True
        link = LinkServer(store, LinkOptions(token="secret"))
        await link.start()
        resp, http = free_port(), free_port()
        async with started(tmp_path, configuration(link.port, resp, http, token)) as process:
            assert process.stderr is not None
            while b"up, RESP on port" not in (line := await process.stderr.readline()):
                assert line, "the gateway ended"
            await until(lambda: bool(link.connections))
            client: Any = redis.Redis(port=resp, retry=NO_RETRY)
            assert await client.set("k", b"v" * 300_000)
            assert await client.get("k") == b"v" * 300_000
            async with session_of(f"http://127.0.0.1:{http}") as session:
                async with session.get("/v1/kv/k") as response:
                    assert await response.read() == b"v" * 300_000
                async with session.get("/readyz") as response:
                    assert response.status == 200
                async with session.get("/metrics") as response:
                    text = await response.text()
                for name in ("gateway_node_serving", "gateway_retries", "resident_bytes"):
                    assert f"distkv_{name}" in text
            assert 'request="set"' in text
            while b"resources: memory" not in (line := await process.stderr.readline()):
                assert line, "the gateway ended"
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
            await client.aclose()
            await link.close()

    run(body)


@pytest.mark.parametrize("field", ["resp", "http"])
def test_a_taken_port_is_named(tmp_path: Path, field: str) -> None:
    async def body() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ports = {"resp": free_port(), "http": free_port()}
            ports[field] = taken.getsockname()[1]
            document = configuration(1, ports["resp"], ports["http"], None)
            async with started(tmp_path, document) as process:
                _, errors = await process.communicate()
                assert process.returncode == 5
                assert f"listen.{field} = 127.0.0.1:{ports[field]}".encode() in errors

    run(body)


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    async def body() -> None:
        document = configuration(1, free_port(), free_port(), tmp_path / "nothing")
        async with started(tmp_path, document) as process:
            _, errors = await process.communicate()
            assert process.returncode not in (0, None)
            assert b"gateway.token_file" in errors

    run(body)
