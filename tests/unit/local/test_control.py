"""Commands to the supervisor, and what it says of its processes."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distkv.local.control import command, serve
from distkv.local.directory import Directory, Identity
from distkv.local.errors import LocalError
from distkv.local.processes import Child
from distkv.local.status import _state


def test_a_full_disk_is_an_answer_and_not_the_end_of_the_supervisor(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "cluster")
    assert directory.try_lock()
    directory.create(Identity("a", "ab" * 16, 3, 2, 7000, None, {}))

    async def perform(name: str, _: dict[str, Any]) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"file of {name}")

    async def run() -> None:
        server = await serve(directory, perform)
        async with server:
            with pytest.raises(LocalError, match="file of wipe: No space left on device"):
                await asyncio.to_thread(command, directory, "wipe")

    asyncio.run(run())
    directory.unlock()


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ("running", "not ready"),
        ("down", "taken down"),
        ("stopped", "stopped by a signal"),
        ("ended", "ended by itself (exit code 3)"),
    ],
)
def test_a_process_that_says_nothing_is_described(process: str, said: str) -> None:
    assert _state(cast(Child, SimpleNamespace(state=process, exit_code=3)), "not ready") == said
