"""`distkv status`: what one process says of itself and of the cluster."""

from __future__ import annotations

import json
from typing import Any

import click

from distkv.cli.client import Client, pieces
from distkv.cli.kv import JSON, SERVER


@click.command()
@SERVER
@JSON
def status(server: str, as_json: bool) -> None:
    """Show what a node or gateway says of itself; a node also of the whole cluster.

    \b
    --json of a node has, besides what it is and does: cluster_view with shards_missing,
    shards_corrupt, values_lost, repair_bytes_..., survives (available, durable: how many more
    nodes may stop, and disks be lost) and members. What is not known is null.
    """
    found = json.loads(b"".join(pieces(Client(server).request("GET", "/v1/status"))))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if "cluster_view" in found:
        from distkv.cli.tables import show_node

        show_node(found)
        return
    for line in _lines(found, ""):
        click.echo(line)


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    """Indented "name: value" lines."""
    lines = []
    for name, item in value.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(item, dict):
            lines += [label, *_lines(item, indent + "  ")]
        elif isinstance(item, list) and any(isinstance(entry, dict) for entry in item):
            lines.append(label)
            for entry in item:
                inner = _lines(entry, indent + "    ")
                inner[0] = f"{indent}  - {inner[0].lstrip()}"
                lines += inner
        else:
            lines.append(f"{label} {'-' if item is None else item}")
    return lines
