"""`distkv admin ...`: what the owner of a cluster, or an administrator in its name, may do.

One module per command; each is given an `AdminApi` by `admin_api.admin_options`.
"""

from __future__ import annotations

import click

from distkv.cli.exits import EXIT_CODES
from distkv.cli.lazy import LazyGroup

COMMANDS = {
    "layout": (
        "distkv.cli.admin_layout",
        "layout",
        "Change the numbers of data and parity shards; show how far that is.",
    ),
    "replace": (
        "distkv.cli.admin_replace",
        "replace",
        "Admit a node whose directory was made anew.",
    ),
    "lost": ("distkv.cli.admin_lost", "lost", "List the keys whose values are lost."),
    "recover": (
        "distkv.cli.admin_recover",
        "recover",
        "Go on with what is left of a cluster that lost its quorum for good.",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, epilog=EXIT_CODES)
def admin() -> None:
    """Act as the owner of a cluster, over the admin listeners of its nodes.

    \b
    Which cluster: --dir DIR            of laptop mode
               or: --admin HOST:PORT ... --token-file FILE
    """
