"""Progress of a transfer: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from distkv.cli.transfer import Tally

MIB = 1024 * 1024
LINE_SECONDS = 5.0
BAR_SECONDS = 0.1


@contextlib.asynccontextmanager
async def showing(title: str, tally: Tally, total: int, files: int) -> AsyncIterator[None]:
    """Show `tally` while the body runs; `total` bytes and `files` are expected (0: unknown)."""
    console = Console(stderr=True)
    began = time.monotonic()
    show = _bar if console.is_terminal else _lines
    task = asyncio.create_task(show(console, title, tally, total, files))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    seconds = max(1e-9, time.monotonic() - began)
    print(
        f"{title}: {tally.files} files, {tally.bytes / MIB:.1f} MiB in {seconds:.1f} s: "
        f"{tally.bytes / MIB / seconds:.1f} MiB/s, {tally.files / seconds:.0f} files/s"
        + (f", {tally.skipped} were there already" if tally.skipped else ""),
        file=sys.stderr,
        flush=True,
    )


async def _bar(console: Console, title: str, tally: Tally, total: int, files: int) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[count]} files"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total or None, count="0")
        while True:
            count = f"{tally.files}/{files}" if files else str(tally.files)
            progress.update(task, completed=tally.bytes, count=count)
            await asyncio.sleep(BAR_SECONDS)


async def _lines(console: Console, title: str, tally: Tally, total: int, files: int) -> None:
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    before = 0
    while True:
        await asyncio.sleep(LINE_SECONDS)
        speed = (tally.bytes - before) / LINE_SECONDS / MIB
        before = tally.bytes
        of = f" of {total / MIB:.1f}" if total else ""
        say(f"{title}: {tally.bytes / MIB:.1f}{of} MiB, {tally.files} files, {speed:.1f} MiB/s")
