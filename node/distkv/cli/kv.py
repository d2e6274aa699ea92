"""`distkv kv ...`: keys over HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import IO

import click

from distkv.cli.client import DEFAULT_SERVER, READ_BYTES, Client, key_of, key_path
from distkv.cli.exits import EXIT_CODES, EXIT_DIFFERENT, Failure

SERVER = click.option(
    "--server",
    default=DEFAULT_SERVER,
    show_default=True,
    envvar="DISTKV_SERVER",
    help="URL of any node or gateway.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
PARALLEL = click.option(
    "--parallel",
    type=click.IntRange(1, 512),
    default=16,
    show_default=True,
    help="Files at a time.",
)
PATIENCE = click.option(
    "--patience",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds to go on asking when the store refuses for now.",
)


@click.group(epilog=EXIT_CODES)
def kv() -> None:
    """Read and write keys; import and export directories."""


@kv.command()
@click.argument("key")
@SERVER
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default stdout.")
def get(key: str, server: str, output: Path | None) -> None:
    """Write the value of KEY to stdout. Exit code 3 if it is not there."""
    response = Client(server).request("GET", key_path(key))
    target = output.open("wb") if output is not None else sys.stdout.buffer
    while piece := response.read(READ_BYTES):
        target.write(piece)
    target.flush()


@kv.command("set")
@click.argument("key")
@click.argument("value", required=False)
@click.option("-f", "--file", type=click.File("rb"), help="Read the value from a file; - is stdin.")
@click.option("--if-absent", is_flag=True, help="Only if KEY is not there.")
@click.option("--if-version", help="Only if KEY has this version (ETag).")
@SERVER
@JSON
def set_(
    key: str,
    value: str | None,
    file: IO[bytes] | None,
    if_absent: bool,
    if_version: str | None,
    server: str,
    as_json: bool,
) -> None:
    """Set KEY to VALUE. Exit code 4 if the condition was not met."""
    if value is not None and file is None:
        data = value.encode("utf-8", "surrogateescape")
    elif file is not None and value is None:
        data = file.read()
    else:
        raise click.UsageError("give either VALUE or --file")
    headers = _condition(if_absent, if_version)
    response = Client(server).request("PUT", key_path(key), data, headers)
    version = (response.getheader("ETag") or "").strip('"')
    response.read()
    click.echo(json.dumps({"key": key, "version": version}) if as_json else version)


def _condition(if_absent: bool, if_version: str | None) -> dict[str, str]:
    headers = {}
    if if_absent:
        headers["If-None-Match"] = "*"
    if if_version is not None:
        headers["If-Match"] = f'"{if_version}"'
    return headers


@kv.command()
@click.argument("key")
@click.option("--if-version", help="Only if KEY has this version (ETag).")
@SERVER
def delete(key: str, if_version: str | None, server: str) -> None:
    """Remove KEY."""
    Client(server).request("DELETE", key_path(key), None, _condition(False, if_version)).read()


@kv.command()
@click.argument("prefix", default="")
@click.option("--start", help="First key.")
@click.option("--end", help="Stop before this key.")
@click.option("--limit", type=click.IntRange(1), help="Most keys.")
@SERVER
@JSON
def scan(
    prefix: str, start: str | None, end: str | None, limit: int | None, server: str, as_json: bool
) -> None:
    """List the keys that begin with PREFIX, in order; --json: one object a line."""
    for entry in Client(server).scan(prefix, start, end, limit):
        if as_json:
            click.echo(json.dumps(entry))
        else:
            click.echo(key_of(entry).encode("utf-8", "surrogateescape"))


@kv.command("import")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--prefix", default="", help="Before every key.")
@click.option(
    "--listing",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of digests; an import that was broken off goes on from it.  "
    "[default: NAME.sha256 in the current directory]",
)
@SERVER
@PARALLEL
@PATIENCE
@JSON
def import_(
    directory: Path,
    prefix: str,
    listing: Path | None,
    server: str,
    parallel: int,
    patience: float,
    as_json: bool,
) -> None:
    """Store every file below DIRECTORY under its relative path."""
    from distkv.cli.progress import showing
    from distkv.cli.transfer import connect, find_files, import_files

    target = listing or Path(f"{directory.resolve().name}.sha256")
    sources = find_files(directory)

    async def run() -> dict[str, object]:
        async with connect(server, parallel, patience) as remote:
            total = sum(source.size for source in sources)
            async with showing("import", remote.tally, total, len(sources)):
                await import_files(remote, sources, prefix, target, parallel)
            tally = remote.tally
            return {"files": tally.files, "bytes": tally.bytes, "skipped": tally.skipped}

    summary = asyncio.run(run()) | {"listing": str(target)}
    click.echo(json.dumps(summary) if as_json else f"digests are in {target}")


@kv.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--prefix", default="", help="Only keys that begin with it; it is cut off.")
@click.option(
    "--listing",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Digests to compare with, as written by import (or sha256sum).",
)
@SERVER
@PARALLEL
@PATIENCE
@JSON
def export(
    directory: Path,
    prefix: str,
    listing: Path | None,
    server: str,
    parallel: int,
    patience: float,
    as_json: bool,
) -> None:
    """Write every key to a file below DIRECTORY; exit code 6 if a digest differs."""
    from distkv.cli.progress import showing
    from distkv.cli.transfer import connect, differences, export_files, read_listing

    async def run() -> tuple[dict[str, str], list[str], int]:
        async with connect(server, parallel, patience) as remote:
            async with showing("export", remote.tally, 0, 0):
                digests = await export_files(remote, prefix, directory, parallel)
            return digests, remote.tally.problems, remote.tally.bytes

    digests, problems, size = asyncio.run(run())
    wrong = differences(read_listing(listing), digests) if listing is not None else []
    if as_json:
        summary = {"files": len(digests), "bytes": size, "different": wrong, "left_out": problems}
        click.echo(json.dumps(summary))
    for line in problems + wrong:
        click.echo(line, err=True)
    if wrong:
        raise Failure(f"{len(wrong)} files are not as the listing says", EXIT_DIFFERENT)
    if listing is not None and not as_json:
        click.echo(f"all {len(digests)} files are as the listing says")
