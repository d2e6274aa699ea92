"""The small commands' connection, against a server that breaks off."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from distkv.cli.client import Client, pieces
from distkv.cli.exits import Failure


@contextlib.contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """Address of a server that answers one request with these bytes and is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                connection.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("had", [0, 1, 9])
def test_half_a_value_is_no_success(had: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    with answering(head + b"x" * had) as server:
        body = pieces(Client(server).request("GET", "/v1/kv/a"))
        with pytest.raises(Failure, match=f"broke off after {had} of 10 bytes"):
            b"".join(body)


def test_a_whole_value_is_one() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc") as server:
        assert b"".join(pieces(Client(server).request("GET", "/v1/kv/a"))) == b"abc"


def test_half_a_listing_is_a_message() -> None:
    with (
        answering(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"keys": [') as server,
        pytest.raises(Failure, match="broke off after 10 of 99 bytes"),
    ):
        list(Client(server).scan("", None, None, None))


def test_a_port_that_speaks_something_else_is_told_apart() -> None:
    with (
        answering(b"-ERR unknown command\r\n") as server,
        pytest.raises(Failure, match="not in HTTP: '-ERR unknown command'"),
    ):
        Client(server).request("GET", "/v1/status")
