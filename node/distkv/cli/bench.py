"""`distkv bench`: put load on a cluster over RESP and measure it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import click

from distkv.cli.exits import EXIT_UNREACHABLE, EXIT_USAGE, Failure
from distkv.cli.kv import JSON
from distkv.config.units import parse_address, parse_size

T = TypeVar("T")
VALUE_BYTES_MAX = 512 * 1024 * 1024
"""The highest bound of limits.value_bytes_max."""


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Failure(f"{option} {text}: {error}", EXIT_USAGE) from None


@click.command()
@click.option(
    "--resp",
    default="127.0.0.1:7000",
    show_default=True,
    help="host:port (RESP) of a node or gateway.",
)
@click.option("--clients", type=click.IntRange(1, 10_000), default=32, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True)
@click.option("--size", default="1KiB", show_default=True, help="Bytes of a value.")
@click.option("--keys", type=click.IntRange(1), default=10_000, show_default=True)
@click.option(
    "--reads", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of GETs."
)
@JSON
def bench(
    resp: str, clients: int, seconds: float, size: str, keys: int, reads: float, as_json: bool
) -> None:
    """Each of the clients sends a request, waits for its answer, and sends the next.

    The first tenth of the time is not counted. Exit code 1 if a request was refused. The values
    stay in the store, under keys that begin with "bench:".
    """
    from distkv.cli.load import Work, run

    address, length = _parsed("--resp", parse_address, resp), _parsed("--size", parse_size, size)
    if length > VALUE_BYTES_MAX:
        raise Failure(f"--size {size}: no value is larger than {VALUE_BYTES_MAX} bytes", EXIT_USAGE)
    try:
        result = run(Work(address.host, address.port, clients, seconds, length, keys, reads))
    except (OSError, TimeoutError) as error:
        reason = str(error) or "out of time"
        raise Failure(
            f"no answer from {resp}: {reason}. Is a node or gateway there? (--resp)",
            EXIT_UNREACHABLE,
        ) from None
    if as_json:
        click.echo(json.dumps(result._asdict()))
    else:
        click.echo(
            f"{result.per_second:.0f} requests/s ({result.requests} in {result.seconds} s), "
            f"p50 {result.p50_ms} ms, p95 {result.p95_ms} ms, p99 {result.p99_ms} ms, "
            f"largest {result.largest_ms} ms"
        )
    if result.errors:
        raise Failure(f"{result.errors} requests failed, the first: {result.first_error}")
