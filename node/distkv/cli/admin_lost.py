"""`distkv admin lost`: keys whose values cannot be rebuilt any more."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

from distkv.cli.admin_api import AdminApi, admin_options
from distkv.cli.exits import EXIT_UNREACHABLE, Failure


def merged(lists: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One entry for each value, by key: nodes find losses out by themselves, and one may know
    of fewer shards than another. The highest count of shards is the truth."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for entry in (entry for entries in lists for entry in entries):
        known = found.get(tuple(entry["value_id"]))
        if known is None:
            found[tuple(entry["value_id"])] = dict(entry)
            continue
        known["shards"] = max(known["shards"], entry["shards"])
        known["since_ms"] = min(known["since_ms"], entry["since_ms"])
    return sorted(found.values(), key=lambda entry: str(entry["key_hex"]))


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    help="Most values that each node is asked for.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@admin_options
def lost(limit: int, as_json: bool, api: AdminApi) -> None:
    """List the keys whose values are lost: too few of their shards are left.

    Reading such a key is refused with "data_lost". It stays on the list until it is
    overwritten, deleted, or found again, for example because a disk comes back. All nodes are
    asked, and those that do not answer are named: they may know of more.
    """
    answers = api.all("GET", f"/v1/admin/lost?limit={limit}")
    given = [(str(a), answer) for a, answer in answers if isinstance(answer, dict)]
    silent = [(str(a), str(answer)) for a, answer in answers if not isinstance(answer, dict)]
    if not given:
        raise Failure(silent[0][1], EXIT_UNREACHABLE)
    values = merged(answer["lost"] for _, answer in given)
    count = max(len(values), *(int(answer["count"]) for _, answer in given))
    if as_json:
        unheard = [address for address, _ in silent]
        click.echo(json.dumps({"count": count, "lost": values, "unheard": unheard}, indent=2))
        return
    for address, reason in silent:
        click.echo(f"{address} does not answer ({reason}): it may know of more", err=True)
    if not values:
        click.echo("no value is known to be lost")
        return
    for entry in values:
        since = datetime.fromtimestamp(entry["since_ms"] / 1000, UTC).isoformat(timespec="seconds")
        click.echo(
            f"{_shown(entry)}: {entry['shards']} shards are left, {entry['data_shards']} are "
            f"needed (found out {since})"
        )
    if count > len(values):
        click.echo(f"... and {count - len(values)} more (--limit)")


def _shown(entry: dict[str, Any]) -> str:
    """The key as text, or its bytes if it is none."""
    raw = bytes.fromhex(entry["key_hex"])
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"0x{raw.hex()}"
    return text if text.isprintable() else repr(text)
