"""`distkv local start` of a node whose disk was wiped: what becomes of it, step by step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from distkv.cli.exits import Failure
from distkv.local import control
from distkv.local.directory import Directory

POLL_SECONDS = 0.2
LINE_SECONDS = 2.0
STALLED_SECONDS = 30.0


class Moment(NamedTuple):
    """How far it is. `held` of `total` shards are there; None: not known yet."""

    text: str
    held: int | None = None
    total: int | None = None
    healed: bool = False


class Watch:
    """Turns one status of the cluster after the other into Moments."""

    def __init__(self, ordinal: int) -> None:
        self._ordinal = ordinal
        self._began: tuple[float, int] | None = None

    def look(self, status: dict[str, Any], now: float) -> Moment:
        """What this status (of `distkv local status --json`) says of the node."""
        node = status["nodes"][self._ordinal]
        stage = node["replacement"]
        if node["process"] != "running":
            return Moment(node["state"])
        if stage is not None and stage["stage"] in ("wiped", "starting"):
            return Moment("starting")
        if stage is not None and node["state"] == "catching up":
            return Moment(f"catching up, {_applied(status, node)}")
        if stage is not None:
            return Moment(f"waiting to be admitted: {stage['detail']}")
        missing, held = node["shards_missing"], node["shards"]
        if missing is None or not node["serving"]:
            return Moment(f"admitted; {node['state']}, counting the shards it should hold")
        if missing == 0:
            return Moment(f"healed: it holds all its {held} shards", held, held, True)
        pace = self._pace(now, missing)
        return Moment(f"admitted; getting its shards{pace}", held, held + missing)

    def _pace(self, now: float, missing: int) -> str:
        if self._began is None or missing > self._began[1]:
            self._began = (now, missing)
        began, first = self._began
        if now - began < 1.0 or missing >= first:
            return ""
        rate = (first - missing) / (now - began)
        return f", {rate:.0f} shards/s, {missing / rate:.0f} s left"


def _applied(status: dict[str, Any], node: dict[str, Any]) -> str:
    known = [other["applied"] for other in status["nodes"] if other["applied"] is not None]
    return f"log applied up to {node['applied'] or 0} of {max(known, default=0)}"


def watch(directory: Directory, ordinal: int) -> None:
    """Show the replacement of a node until it is healed.

    Raises Failure, naming the reason, if nothing moves for a while: it goes on all the same.
    Ctrl-C ends the watching only.
    """
    began = moved = time.monotonic()
    observer, before = Watch(ordinal), Moment("")
    with _screen(f"node-{ordinal}") as show:
        while True:
            now = time.monotonic()
            moment = observer.look(control.command(directory, "status"), now)
            if moment != before:
                before, moved = moment, now
            show(moment)
            if moment.healed:
                break
            if now - moved > STALLED_SECONDS:
                raise Failure(
                    f"node-{ordinal} is started, but not healed: for {STALLED_SECONDS:.0f} s "
                    f"nothing moved ({moment.text}). It goes on when it can; see "
                    f"`distkv local status --dir {directory.path}`"
                )
            time.sleep(POLL_SECONDS)
    click.echo(f"node-{ordinal} is {before.text}, after {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def _screen(name: str) -> Iterator[Callable[[Moment], None]]:
    """Shows moments: a bar on a terminal, else a line for each step and now and then one more."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name).show
        return
    columns = (TextColumn(f"{name} {{task.description}}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def show(moment: Moment) -> None:
            progress.update(
                task, description=moment.text, total=moment.total, completed=moment.held or 0
            )

        yield show


class _Lines:
    def __init__(self, name: str) -> None:
        self._name = name
        self._said = ""
        self._said_at = 0.0

    def show(self, moment: Moment) -> None:
        step = moment.text.partition(",")[0]
        now = time.monotonic()
        if moment.healed or (step == self._said and now - self._said_at < LINE_SECONDS):
            return
        counted = "" if moment.total is None else f" ({moment.held} of {moment.total})"
        if step != self._said or moment.total is not None:
            click.echo(f"{self._name} {moment.text}{counted}", err=True)
        self._said, self._said_at = step, now
