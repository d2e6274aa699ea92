"""`distkv admin replace`: name the directory that takes the seat of one that was lost."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from distkv.cli.admin_api import AdminApi, Refused, admin_options
from distkv.cli.exits import EXIT_USAGE, Failure

POLL_SECONDS = 0.2


@click.command()
@click.argument("ordinal", type=click.IntRange(min=0))
@click.option("--new", type=int, help="Incarnation to admit.  [default: the node's own]")
@click.option("--old", type=int, help="Incarnation it replaces.  [default: the present member]")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to go on while the node still catches up.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@admin_options
def replace(
    ordinal: int, new: int | None, old: int | None, wait: float, as_json: bool, api: AdminApi
) -> None:
    """Admit the node at ORDINAL, whose directory is new, in place of the old directory.

    The node must run. Be sure that the old directory is really gone: an empty one may also
    mean that a disk was not mounted. The old incarnation is never admitted again, whatever it
    still holds.
    """
    new = _own_incarnation(api, ordinal) if new is None else new
    old = _member(api, ordinal) if old is None else old
    if old != new:
        if not as_json:
            click.echo(f"node {ordinal}: incarnation {new} takes the seat of {old} ...", err=True)
        _until_replaced(api, ordinal, old, new, wait)
    if as_json:
        click.echo(json.dumps({"ordinal": ordinal, "incarnation": new, "replaced": old != new}))
    elif old == new:
        click.echo(f"node {ordinal} is a member already (incarnation {new}): nothing to do")
    else:
        click.echo(
            f"node {ordinal} is a member now (incarnation {new}) and is getting its shards: "
            "see `distkv status`"
        )


def _own_incarnation(api: AdminApi, ordinal: int) -> int:
    """Who the running node says it is."""
    for _, answer in api.all("GET", "/v1/admin/identity"):
        if isinstance(answer, dict) and answer.get("ordinal") == ordinal:
            return int(answer["incarnation"])
    raise Failure(
        f"node {ordinal} does not answer at any of the given admin listeners: start it, or give "
        "its incarnation with --new",
        EXIT_USAGE,
    )


def _member(api: AdminApi, ordinal: int) -> int:
    """The member at `ordinal`, as the node that applied most knows it."""
    known: list[dict[str, Any]] = [
        answer
        for _, answer in api.all("GET", "/v1/admin/status")
        if isinstance(answer, dict) and "layout" in answer
    ]
    if not known:
        raise Failure("no node of the cluster that could say who its members are answers")
    members = max(known, key=lambda answer: int(answer["applied"]))["layout"]["members"]
    if ordinal >= len(members):
        raise Failure(
            f"there is no ordinal {ordinal}: the cluster has 0 to {len(members) - 1}", EXIT_USAGE
        )
    return int(members[ordinal][1])


def _until_replaced(api: AdminApi, ordinal: int, old: int, new: int, wait: float) -> None:
    """Ask the leader again and again; each time it judges anew. Raises Failure."""
    request = {"owner": api.owner(), "ordinal": ordinal, "old": old, "new": new}
    deadline = time.monotonic() + wait
    said = ""
    while True:
        try:
            if api.leader("POST", "/v1/admin/replace", request, wait)["replaced"]:
                return
            reason = "proposed, not applied yet"
        except Refused as refused:
            if refused.code not in ("not_yet", "not_formed"):
                raise
            reason = str(refused)
        if time.monotonic() > deadline:
            raise Failure(f"node {ordinal} is not admitted after {wait:.0f} s: {reason}")
        if reason != said:
            click.echo(f"  {reason}", err=True)
            said = reason
        time.sleep(POLL_SECONDS)
