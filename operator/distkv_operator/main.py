"""`distkv-operator`: runs the operator."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from distkv_operator.settings import PREFIX, Settings, SettingsError, load

EXITS = """
Exit codes: 0 stopped by a signal; 1 failed; 2 wrong usage; 3 the lease was lost; 5 the port of
metrics and probes cannot be listened on.
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXITS)
@click.version_option(package_name="distkv", prog_name="distkv-operator")
def root() -> None:
    """The operator of DistKV: it keeps every DistKVCluster true."""


def _options(command: Any) -> Any:
    """A flag for each setting."""
    for name, info in reversed(Settings.model_fields.items()):
        flag = "--" + name.replace("_", "-")
        shown = f"  [default: {info.default}]" if info.default not in ("", (), False) else ""
        text = f"{info.description} [{PREFIX}{name.upper()}]{shown}"
        kind: dict[str, Any] = {"is_flag": True} if info.annotation is bool else {}
        command = click.option(flag, name, default=None, help=text, **kind)(command)
    return command


@root.command()
@_options
def run(**flags: Any) -> None:
    """Run until stopped.

    In a pod it uses its service account. `--dev` runs it on a laptop: with KUBECONFIG, reaching
    the nodes through the API server.
    """
    from distkv_operator.kube.credentials import NoCredentials
    from distkv_operator.logs import set_up
    from distkv_operator.running import Operator

    try:
        settings = load(flags)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    form = "text" if settings.dev and flags.get("log_format") is None else settings.log_format
    set_up(settings.log_level, form)

    async def go() -> int:
        return await Operator(settings).run()

    try:
        sys.exit(asyncio.run(go()))
    except NoCredentials as error:
        raise click.ClickException(str(error)) from error


def main() -> None:
    """Entry point."""
    root()


if __name__ == "__main__":
    main()
