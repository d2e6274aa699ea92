"""`distkv node`, `distkv gateway`, `distkv simulate`: what runs until it is stopped."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from distkv.cli.exits import EXIT_USAGE, Failure
from distkv.config import Config, ConfigError, load
from distkv.config.live import Source
from distkv.local.processes import die_with_parent

CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file, TOML or (named *.json) JSON.",
)
SET = click.option(
    "--set",
    "flags",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="Set one field of the configuration; wins over file and environment. Repeatable.",
)


def load_or_fail(role: str, path: Path | None, flags: tuple[str, ...]) -> Config:
    """The configuration from all three places, or an error for people."""
    try:
        return load(role, path, os.environ, flags)
    except ConfigError as error:
        raise wrong_configuration(error) from None


def wrong_configuration(error: ConfigError) -> Failure:
    """What is shown of a refused configuration."""
    lines = "\n".join(f"  {problem}" for problem in error.problems)
    return Failure(
        f"the configuration is refused:\n{lines}\n`distkv config explain` describes every field.",
        EXIT_USAGE,
    )


@click.command()
@CONFIG
@SET
def node(config_file: Path | None, flags: tuple[str, ...]) -> None:
    """Run a node of a cluster until SIGTERM or SIGINT.

    Fields are read from the file, then from DISTKV_SECTION__FIELD variables, then from --set.
    """
    die_with_parent()
    config = load_or_fail("node", config_file, flags)
    _run("distkv.runtime.node", config, Source("node", config_file, os.environ, flags))


@click.command()
@CONFIG
@SET
def gateway(config_file: Path | None, flags: tuple[str, ...]) -> None:
    """Run a gateway: the doors of a node without a replica, in front of all nodes.

    It takes over gateway.nodes from its file while it runs; the rest needs a restart.
    """
    die_with_parent()
    config = load_or_fail("gateway", config_file, flags)
    _run("distkv.gateway.process", config, Source("gateway", config_file, os.environ, flags))


def _run(module: str, *arguments: object) -> None:
    """Call `module.main(*arguments)`; its return value is the exit code."""
    main = cast(Callable[..., Any], importlib.import_module(module).main)
    try:
        code = main(*arguments)
    except ConfigError as error:
        raise wrong_configuration(error) from None
    sys.exit(code or 0)


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> None:
    """Run simulated clusters from seeds."""
    if importlib.util.find_spec("distkv.simulation") is None:
        raise Failure("this build has no simulator")
    run = cast(Callable[[list[str]], Any], importlib.import_module("distkv.simulation.cli").main)
    sys.exit(run(list(arguments)) or 0)
