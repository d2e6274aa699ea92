"""Forced recovery as people see it: what it will keep and lose, a phrase to confirm, the deed."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from distkv.cli.exits import EXIT_USAGE, Failure
from distkv.member.identity import WrongDirectory
from distkv.member.recovery import Findings, Recovery
from distkv.member.survivors import CannotRecover, Survivor
from distkv.storage.base import Engine, StorageError
from distkv.storage.open import DEFAULT_ENGINE, open_engine

LOST_SHOWN = 20


def engine_of(directory: Path) -> str:
    """Name of the storage engine that made a directory."""
    try:
        return (directory / "engine").read_text("utf-8").strip() or DEFAULT_ENGINE
    except OSError:
        raise Failure(f"{directory} is no data directory of a node", EXIT_USAGE) from None


@contextlib.contextmanager
def opened(directories: Mapping[str, Path]) -> Iterator[dict[str, Engine]]:
    """The stores in existing data directories, by name. Raises Failure: one is in use, ..."""
    with contextlib.ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name, directory in directories.items():
            try:
                engines[name] = engine = open_engine(engine_of(directory), directory)
            except StorageError as error:
                raise Failure(
                    f"{name}: {error}. Every node must be stopped, and stay so until the "
                    "recovery is done"
                ) from None
            stack.callback(engine.close)
        yield engines


def survey(engines: Mapping[str, Engine]) -> Recovery:
    """What can be done with these directories. Raises Failure."""
    try:
        return Recovery([Survivor(name, engine) for name, engine in engines.items()])
    except (CannotRecover, WrongDirectory, StorageError) as error:
        raise Failure(str(error)) from None


def show(findings: Findings, as_json: bool) -> None:
    """Before anything is changed."""
    if as_json:
        click.echo(json.dumps(findings._asdict() | {"phrase": findings.phrase}, indent=2))
        return
    kept = ", ".join(map(str, findings.survivors))
    lost = ", ".join(map(str, findings.lost_ordinals))
    from_logs = findings.slots - findings.slots_unknown
    lines = [
        f"directories that are left: nodes {kept}; lost: nodes {lost or 'none'}",
        f"metadata: all {findings.applied} slots applied by the node that is furthest along"
        + (f", and {from_logs} more from the logs" if from_logs else ""),
    ]
    if findings.half_done:
        lines.append("an earlier recovery was broken off after it had decided: this finishes it")
    if findings.slots_uncertain:
        lines.append(
            f"  of those, {findings.slots_uncertain} ({findings.commands} commands) were accepted "
            "but perhaps never confirmed to a client; they are kept"
        )
    if findings.slots_unknown:
        lines.append(f"  {findings.slots_unknown} further slots are known to nobody left: LOST")
    if findings.slots_gone:
        lines.append(
            f"  {findings.slots_gone} of these were chosen: clients may have been told what they "
            "did, and how many keys they changed nobody left knows"
        )
    lines += findings.remarks
    lines.append(
        "writes of the last moments that only the lost nodes held are LOST; nobody left can "
        "know of them"
    )
    lines.append(f"keys: {findings.keys}, of which {findings.keys_lost} are LOST (too few shards)")
    lines += [f"  {key}" for key in findings.lost[:LOST_SHOWN]]
    if findings.keys_lost > LOST_SHOWN:
        lines.append(f"  ... and {findings.keys_lost - LOST_SHOWN} more (--json lists 1000)")
    lines += [
        f"the cluster goes on as generation {findings.generation}: a lost node that turns up "
        "again is refused for ever",
        "lost keys answer `data_lost` until they are written or deleted",
    ]
    click.echo("\n".join(lines))


def confirm(findings: Findings, phrase: str | None) -> bool:
    """Whether to go on. Raises Failure for another phrase than the one of these findings."""
    if phrase is None:
        click.echo(f"nothing was changed. To do it: the same command with --yes {findings.phrase}")
        return False
    if phrase != findings.phrase:
        raise Failure(
            f"--yes {phrase} does not fit what was found now: look at the findings again; "
            f"nothing was changed (the phrase would be {findings.phrase})",
            EXIT_USAGE,
        )
    return True


def carry_out(recovery: Recovery, fresh: Mapping[int, Path], engine: str) -> None:
    """Make the directories of the lost ordinals, and change those of the survivors."""
    stores: dict[int, Engine] = {}
    try:
        for member in recovery.lost_members:
            directory = fresh[member.ordinal]
            stores[member.ordinal] = open_engine(engine, directory)
        incarnations = {ordinal: secrets.randbits(62) + 1 for ordinal in stores}
        recovery.carry_out(stores, incarnations)
    except (CannotRecover, StorageError) as error:
        raise Failure(f"{error}. The same command goes on where it stopped") from None
    finally:
        for store in stores.values():
            store.close()
