"""`distkv status`: what one process says of itself."""

from __future__ import annotations

import json
from typing import Any

import click

from distkv.cli.client import Client
from distkv.cli.kv import JSON, SERVER


@click.command()
@SERVER
@JSON
def status(server: str, as_json: bool) -> None:
    """Show what a node or gateway says of itself and of the cluster."""
    found = json.loads(Client(server).request("GET", "/v1/status").read())
    if as_json:
        click.echo(json.dumps(found, indent=2))
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
