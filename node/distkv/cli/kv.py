"""`distkv kv ...`: keys over HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import IO

import click

from distkv.cli.client import DEFAULT_SERVER, Client, key_of, key_path, pieces
from distkv.cli.exits import EXIT_CODES, EXIT_DIFFERENT, EXIT_FAILED, Failure

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
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds to go on asking when the store refuses for now.",
)


@click.group(epilog=EXIT_CODES)
def kv() -> None:
    """Read and write keys; import and export directories."""


def _key(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("an empty key has no URL; over RESP it may be used")
    return value


def _version(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value.isascii() and value.isdecimal()):
        raise click.BadParameter(
            f"{value!r} is no version: give the number that `distkv kv set` or `scan --json` showed"
        )
    return value


KEY = click.argument("key", callback=_key)


@kv.command()
@KEY
@SERVER
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default stdout.")
def get(key: str, server: str, output: Path | None) -> None:
    """Write the value of KEY to stdout. Exit code 3 if it is not there."""
    response = Client(server).request("GET", key_path(key))
    # Opened only now: without an answer a file that is there stays as it was.
    target = output.open("wb") if output is not None else sys.stdout.buffer
    for piece in pieces(response):
        target.write(piece)
    target.flush()


@kv.command("set")
@KEY
@click.argument("value", required=False)
@click.option("-f", "--file", type=click.File("rb"), help="Read the value from a file; - is stdin.")
@click.option("--if-absent", is_flag=True, help="Only if KEY is not there.")
@click.option("--if-version", callback=_version, help="Only if KEY has this version (ETag).")
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
    """Set KEY to VALUE and print its new version. Exit code 4 if the condition was not met."""
    if if_absent and if_version is not None:
        raise click.UsageError("give either --if-absent or --if-version")
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
    # A number, as in a listing.
    click.echo(json.dumps({"key": key, "version": int(version)}) if as_json else version)


def _condition(if_absent: bool, if_version: str | None) -> dict[str, str]:
    headers = {}
    if if_absent:
        headers["If-None-Match"] = "*"
    if if_version is not None:
        headers["If-Match"] = f'"{if_version}"'
    return headers


@kv.command()
@KEY
@click.option("--if-version", callback=_version, help="Only if KEY has this version (ETag).")
@SERVER
def delete(key: str, if_version: str | None, server: str) -> None:
    """Remove KEY. Exit code 3 if it is not there, 4 if it has another version."""
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
    """List the keys that begin with PREFIX.

    In order; --json gives one object a line. A key of bytes that are not UTF-8 is in base64 there,
    with "encoding" saying so.
    """
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
    """Store every file below DIRECTORY under its relative path.

    Exit code 1 if some cannot be read; the others are stored all the same. What is no regular
    file, and links to directories, are named and left out.
    """
    from distkv.cli.progress import showing
    from distkv.cli.transfer import connect, find_files, import_files

    target = listing or Path(f"{directory.resolve().name}.sha256")
    sources, unreadable, others = find_files(directory)
    for line in unreadable + others:
        click.echo(f"left out: {line}", err=True)

    async def run() -> dict[str, object]:
        async with connect(server, parallel, patience) as remote:
            total = sum(source.size for source in sources)
            async with showing("import", remote.tally, total, len(sources)):
                await import_files(remote, sources, prefix, target, parallel)
            tally = remote.tally
            return {"files": tally.files, "bytes": tally.bytes, "skipped": tally.skipped}

    summary = asyncio.run(run()) | {"listing": str(target), "unreadable": unreadable}
    click.echo(json.dumps(summary) if as_json else f"digests are in {target}")
    if unreadable:
        raise Failure(f"{len(unreadable)} files or directories cannot be read", EXIT_FAILED)


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
    """Write every key to a file below DIRECTORY.

    Exit code 6 if a digest differs, and if a key has no file: one that is no path (such as
    "a//b", or "a/b" beside "a"), or whose value is lost. These are named, the others written.
    Times of expiry are not exported.
    """
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
    failures = [f"{len(problems)} keys have no file"] if problems else []
    failures += [f"{len(wrong)} files are not as the listing says"] if wrong else []
    if failures:
        raise Failure("; ".join(failures), EXIT_DIFFERENT)
    if listing is not None and not as_json:
        click.echo(f"all {len(digests)} files are as the listing says")
