"""The `distkv` command: finds the subcommand and imports only what it needs.

A node must start fast, so nothing is imported before its command was chosen.
"""

from __future__ import annotations

import errno
import os
import sys

import click

from distkv.cli.exits import EXIT_CODES, EXIT_FAILED, EXIT_INTERRUPTED, OF_FILES, Failure
from distkv.cli.lazy import LazyGroup

COMMANDS = {
    "node": ("distkv.cli.processes", "node", "Run a node of a cluster."),
    "gateway": ("distkv.cli.processes", "gateway", "Run a gateway in front of a cluster."),
    "local": ("distkv.cli.local", "local", "Run a whole cluster on this machine."),
    "kv": ("distkv.cli.kv", "kv", "Read and write keys; import and export directories."),
    "status": ("distkv.cli.status", "status", "Show what a node or gateway says of itself."),
    "admin": ("distkv.cli.admin", "admin", "Act as the owner of a cluster: members, loss."),
    "config": ("distkv.cli.config", "config", "Check and explain the configuration."),
    "bench": ("distkv.cli.bench", "bench", "Put load on a cluster and measure it."),
    "simulate": ("distkv.cli.processes", "simulate", "Run simulated clusters from seeds."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="distkv", prog_name="distkv")
def root() -> None:
    """DistKV: a strongly consistent, erasure-coded key-value store."""


def main() -> None:
    """Run; errors that are the user's business are one message, not a traceback."""
    try:
        root(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Failure as failure:
        click.echo(f"distkv: {failure}", err=True)
        sys.exit(failure.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; let the interpreter not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno not in OF_FILES:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        click.echo(f"distkv: {where}{error.strerror}", err=True)
        if error.errno == errno.ENOSPC:
            # What is buffered for standard output cannot be written at the end either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_FAILED)
