"""Commands to the supervisor: one JSON line each way over a unix socket in the directory.

The socket is reached through an open descriptor of the directory, because a path of a unix
socket may have 107 bytes only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from distkv.local.directory import Directory
from distkv.local.errors import LocalError, NotRunning

SOCKET = "control.sock"
LINE_BYTES_MAX = 1024 * 1024
ANSWER_SECONDS = 60.0

Perform = Callable[[str, dict[str, Any]], Awaitable[Any]]


@contextlib.contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """A path of the socket that is short enough, whatever the directory's is."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


async def serve(directory: Directory, perform: Perform) -> asyncio.Server:
    """Answer commands with what `perform(command, arguments)` returns, or its LocalError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.LimitOverrunError):
            request = json.loads(await reader.readline())
            try:
                result = {"result": await perform(request["command"], request["arguments"])}
            except LocalError as error:
                result = {"error": str(error)}
            except OSError as error:
                # Such as a full disk; it must not look as if nobody had answered.
                where = error.filename or directory.path
                result = {"error": f"{where}: {error.strerror or error}"}
            writer.write(json.dumps(result).encode() + b"\n")
            await writer.drain()
        writer.close()

    (directory / SOCKET).unlink(missing_ok=True)
    with short_path(directory.path) as path:
        server = await asyncio.start_unix_server(answer, path, limit=LINE_BYTES_MAX)
    (directory / SOCKET).chmod(0o600)
    return server


def command(directory: Directory, name: str, **arguments: Any) -> Any:
    """Have the supervisor do something. Raises NotRunning, LocalError."""
    if not directory.exists or not directory.is_running():
        raise NotRunning(
            f"no local cluster runs in {directory.path}: start it with "
            f"`distkv local up --dir {directory.path}`"
        )
    with (
        short_path(directory.path) as path,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(path)
            connection.sendall(
                json.dumps({"command": name, "arguments": arguments}).encode() + b"\n"
            )
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except OSError as error:
            raise NotRunning(
                f"the supervisor of {directory.path} does not answer ({error}); it may be "
                "starting or stopping: try again"
            ) from None
    if not line:
        raise LocalError(f"the supervisor of {directory.path} ended before it answered")
    answer = json.loads(line)
    if "error" in answer:
        raise LocalError(answer["error"])
    return answer["result"]
