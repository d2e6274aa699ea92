"""The admin listeners of a cluster, for commands: where they are, with which token, as whom."""

from __future__ import annotations

import functools
import http.client
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from distkv.cli.client import reason_of
from distkv.cli.exits import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from distkv.config.units import Address, parse_address
from distkv.local.directory import Directory
from distkv.local.errors import LocalError
from distkv.local.ports import HOST, PortPlan

TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.1
_PASSING = ("not_leader", "no_quorum", "shutting_down", "busy")
"""Refusals of one node that another one, or the same a moment later, need not repeat."""

_REMEDIES = {
    "unauthorized": ". Give the nodes' admin.token_file with --token-file",
    "foreign_owner": ". Leave --owner out to act in its name",
}


class Refused(Failure):
    """A node answered and refused. `code`: see errors.py and member/admission.py."""

    def __init__(self, code: str, message: str) -> None:
        remedy = _REMEDIES.get(code, "")
        super().__init__(f"{code}: {message}{remedy}" if code else message, EXIT_FAILED)
        self.code = code


class Unreachable(Failure):
    """Nobody answered at an address."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EXIT_UNREACHABLE)


class AdminApi:
    """`owner` None: act in the name of the owner that the cluster itself names. `directory`:
    of a cluster of laptop mode, whose owner is its supervisor."""

    def __init__(
        self,
        addresses: Sequence[Address],
        token: str,
        owner: str | None,
        directory: Directory | None = None,
    ) -> None:
        self.addresses = tuple(addresses)
        self.directory = directory
        self._token = token
        self._owner = owner

    def at(self, address: Address, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of one node. Raises Refused, Unreachable."""
        connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_SECONDS)
        headers = {"X-DistKV-Token": self._token, "Connection": "close"}
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, raw, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error).strip() or type(error).__name__
            raise Unreachable(
                f"no answer from {address}: {reason}. Is an admin listener (listen.admin) there?"
            ) from None
        finally:
            connection.close()
        if response.status >= 300:
            raise Refused(*reason_of(response.status, content))
        return json.loads(content)

    def any(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the first node that gives one. Raises Refused, Unreachable."""
        failures: list[Failure] = []
        for address in self.addresses:
            try:
                return self.at(address, method, path, body)
            except (Refused, Unreachable) as failure:
                failures.append(failure)
        # What somebody said is worth more than that nobody was there.
        failures.sort(key=lambda failure: isinstance(failure, Unreachable))
        raise failures[0]

    def all(self, method: str, path: str, body: Any = None) -> list[tuple[Address, Any]]:
        """(address, answer) of every node; the answer of one that gives none is its Failure.

        Raises Refused if the token is wrong.
        """
        answers: list[tuple[Address, Any]] = []
        for address in self.addresses:
            try:
                answers.append((address, self.at(address, method, path, body)))
            except (Refused, Unreachable) as failure:
                if isinstance(failure, Refused) and failure.code == "unauthorized":
                    raise
                answers.append((address, failure))
        return answers

    def leader(
        self, method: str, path: str, body: Any = None, patience: float = PATIENCE_SECONDS
    ) -> Any:
        """The leader's answer, whichever node that is; waits `patience` seconds for one.

        The request is sent to each node in turn until one does not say that another leads,
        so it must be harmless to repeat. Raises Refused, Unreachable.
        """
        deadline = time.monotonic() + patience
        while True:
            failures: dict[Address, Failure] = {}
            for address in self.addresses:
                try:
                    return self.at(address, method, path, body)
                except Refused as refused:
                    if refused.code not in _PASSING:
                        raise
                    failures[address] = refused
                except Unreachable as unreachable:
                    failures[address] = unreachable
            if time.monotonic() > deadline:
                raise _nobody(failures, patience)
            time.sleep(POLL_SECONDS)

    def owner(self) -> str:
        """In whose name commands are sent. Raises Failure."""
        if self._owner is None:
            owner = self.any("GET", "/v1/admin/status").get("owner")
            if not owner:
                raise Failure("the cluster does not say who owns it: give --owner")
            self._owner = str(owner)
        return self._owner


def _nobody(failures: dict[Address, Failure], patience: float) -> Failure:
    """Why no leader took a request, node by node."""
    reasons = "; ".join(
        str(failure) if isinstance(failure, Unreachable) else f"{address}: {failure}"
        for address, failure in failures.items()
    )
    text = f"no leader answers within {patience:.0f} s ({reasons})"
    if all(isinstance(failure, Unreachable) for failure in failures.values()):
        return Unreachable(text)
    return Refused("no_leader", text)


class Where(NamedTuple):
    """What the user said about where the cluster is."""

    directory: Path | None
    admin: tuple[str, ...]
    token_file: Path | None
    owner: str | None


def find(where: Where) -> AdminApi:
    """The admin listeners meant. Raises Failure naming the option that is wrong or missing."""
    if where.directory is not None and where.admin:
        raise Failure("give either --dir or --admin, not both", EXIT_USAGE)
    if where.admin:
        return _of_addresses(where)
    directory = Directory(Path("distkv-data") if where.directory is None else where.directory)
    if where.directory is None and not directory.exists:
        raise Failure(
            "which cluster? Give --dir DIR (laptop mode), or --admin HOST:PORT of its nodes and "
            "--token-file FILE",
            EXIT_USAGE,
        )
    try:
        identity, ownership = directory.identity(), directory.ownership()
        plan = PortPlan(identity.port_base, directory.nodes)
        addresses = [Address(HOST, plan.node(i).admin) for i in range(plan.nodes)]
        owner = where.owner or ownership.owner
        return AdminApi(addresses, directory.token(), owner, directory)
    except LocalError as error:
        raise Failure(str(error)) from None


def _of_addresses(where: Where) -> AdminApi:
    if where.token_file is None:
        raise Failure(
            "--token-file FILE is needed with --admin: the nodes' admin.token_file", EXIT_USAGE
        )
    try:
        token = where.token_file.read_text().strip()
    except OSError as error:
        raise Failure(f"--token-file {where.token_file}: {error.strerror}", EXIT_USAGE) from None
    try:
        addresses = [parse_address(text) for text in where.admin]
    except ValueError as error:
        raise Failure(f"--admin: {error}", EXIT_USAGE) from None
    return AdminApi(addresses, token, where.owner)


def admin_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options --dir, --admin, --token-file and --owner; the command gets `api`, an AdminApi."""

    @click.option(
        "--dir",
        "where_directory",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="DISTKV_DIR",
        help="Directory of a cluster of laptop mode.  [default: distkv-data, if it is there]",
    )
    @click.option(
        "--admin",
        "where_admin",
        multiple=True,
        metavar="HOST:PORT",
        help="Admin listener of a node; repeat it for every node: the leader is found among them.",
    )
    @click.option(
        "--token-file",
        "where_token_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="DISTKV_TOKEN_FILE",
        help="File with the admin token, with --admin.",
    )
    @click.option(
        "--owner",
        "where_owner",
        help="In whose name to act.  [default: the owner that the cluster names]",
    )
    @functools.wraps(command)
    def wrapped(
        *arguments: Any,
        where_directory: Path | None,
        where_admin: tuple[str, ...],
        where_token_file: Path | None,
        where_owner: str | None,
        **options: Any,
    ) -> None:
        where = Where(where_directory, where_admin, where_token_file, where_owner)
        command(*arguments, api=find(where), **options)

    return wrapped
