"""What the clients of hack/chaos enter when a node dies under a request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chaos.record import Record, load
from chaos.workload import Client, History, HttpDoor, RespDoor

HOST = "127.0.0.1"
CONFIG = {"seed": 1, "key_seconds": 1, "pace_seconds": 0}


async def _enter(
    door: type[HttpDoor] | type[RespDoor], kind: str, path: Path, taken: int
) -> Record:
    """One operation at a node that dies when it has read the request `taken` times."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(1 << 16))
        server.close()
        writer.close()

    requests: list[bytes] = []
    server = await asyncio.start_server(die, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    if not taken:
        server.close()
        await server.wait_closed()
    out = History(path, "w")
    out.add(o="clock", i=0.0, wall=0.0)
    client = door(HOST, port)
    await Client(0, "0", client, CONFIG, out).operate(kind, "r0-0")
    await client.close()
    out.close()
    assert len(requests) == taken
    return load(path)


@pytest.mark.parametrize("door", [HttpDoor, RespDoor])
@pytest.mark.parametrize("kind", ["put", "delete"])
def test_a_node_that_dies_after_it_took_a_write(
    tmp_path: Path, door: type[HttpDoor] | type[RespDoor], kind: str
) -> None:
    """It may have been done: no second try, which would be refused, may hide that."""
    record = asyncio.run(_enter(door, kind, tmp_path / "history", 1))
    assert [(op.kind, bool(op.error), op.certain) for op in record.operations] == [
        (kind, True, False)
    ]
    assert [call.open for call in record.calls()] == [True]


@pytest.mark.parametrize("door", [HttpDoor, RespDoor])
def test_a_node_that_is_down_took_nothing(
    tmp_path: Path, door: type[HttpDoor] | type[RespDoor]
) -> None:
    record = asyncio.run(_enter(door, "put", tmp_path / "history", 0))
    assert [(op.kind, op.certain) for op in record.operations] == [("put", True)]
    assert record.calls() == []
