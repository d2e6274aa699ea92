"""`distkv config validate|explain`."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import click

from distkv.cli.processes import SET, load_or_fail
from distkv.config.explain import explain as explain_fields
from distkv.config.explain import section_models


@click.group()
def config() -> None:
    """Check and explain the configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--role",
    type=click.Choice(["node", "gateway", "any"]),
    default="any",
    show_default=True,
    help="Also require what a process of that kind needs.",
)
@SET
def validate(file: Path, role: str, flags: tuple[str, ...]) -> None:
    """Check FILE with this environment; every problem is named with its place and remedy.

    Exit code 2 if it would be refused.
    """
    load_or_fail(role, file, flags)
    click.echo(f"{file}: valid")


def _unknown(name: str) -> click.UsageError:
    section = name.partition(".")[0]
    sections = [known for known, _, _ in section_models()]
    if section not in sections:
        return click.UsageError(f"there is no section {section!r}: {', '.join(sections)}")
    known = [field.field for field in explain_fields() if field.field.startswith(f"{section}.")]
    return click.UsageError(f"there is no field {name!r}: {', '.join(known)}")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("section", required=False)
def explain(as_json: bool, section: str | None) -> None:
    """Print every field with its type, default, bounds and meaning.

    SECTION: only those of a section, such as limits, or one field, such as limits.key_bytes_max.
    """
    fields = explain_fields()
    if section is not None:
        fields = [x for x in fields if x.field == section or x.field.startswith(f"{section}.")]
        if not fields:
            raise _unknown(section)
    if as_json:
        click.echo(json.dumps([field._asdict() for field in fields], indent=2))
        return
    purposes = {name: purpose for name, _, purpose in section_models()}
    for name, group in groupby(fields, lambda field: field.field.partition(".")[0]):
        click.echo(f"[{name}]  {purposes[name]}")
        for field in group:
            default = "(unset)" if field.default is None else json.dumps(field.default)
            bounds = f"; {field.bounds}" if field.bounds else ""
            click.echo(f"  {field.field.partition('.')[2]} = {default}  ({field.type}{bounds})")
            click.echo(f"      {field.description}")
            click.echo(f"      {field.variable}")
        click.echo()
