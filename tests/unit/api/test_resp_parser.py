"""RESP framing: however the bytes are cut, whatever they are."""

from __future__ import annotations

import random
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkv.api.options import STREAMED_FROM, Limits
from distkv.api.resp.inline import UnbalancedQuotes, split_inline
from distkv.api.resp.parser import FAST_READ_MAX, Argument, Refused, RequestParser


class Large:
    """Collects what is streamed."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.data = bytearray()
        self.finished = False
        self.aborted = False

    def write(self, piece: bytes) -> None:
        assert not self.finished
        self.data += piece

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


def make(limits: Limits | None = None) -> tuple[RequestParser, list[Large]]:
    opened: list[Large] = []

    def open_large(arguments: list[Argument], length: int) -> Large:
        opened.append(Large(length))
        return opened[-1]

    return RequestParser(limits or Limits(), open_large), opened


def encode(command: list[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    parts += [b"$%d\r\n%b\r\n" % (len(a), a) for a in command]
    return b"".join(parts)


def plain(items: list) -> list[list[bytes]]:
    result = []
    for item in items:
        assert not isinstance(item, Refused), item
        result.append([a if isinstance(a, bytes) else bytes(a.data) for a in item])
    return result


def cut(data: bytes, seed: int, most: int) -> list[bytes]:
    rng = random.Random(seed)
    pieces = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 2, 3, rng.randint(1, most)))
        pieces.append(data[at : at + size])
        at += size
    return pieces


arguments = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"\r\n", b"*3", b"$5\r\nhello\r\n", b"*99999\r\n", b">99999\r\n", b":1"]),
    st.integers(0, 200_000).map(lambda n: bytes([n % 251]) * n),
)


@settings(max_examples=150)
@given(
    st.lists(st.lists(arguments, min_size=1, max_size=5), max_size=12),
    st.integers(0, 2**32),
    st.sampled_from([5, 300, FAST_READ_MAX, 300_000]),
)
def test_any_cut_gives_the_same_commands(commands: list[list[bytes]], seed: int, most: int) -> None:
    parser, opened = make()
    found: list[list[bytes]] = []
    stream = b"".join(map(encode, commands))
    if most == 5 and len(stream) > 20_000:
        most = 5000
    for piece in cut(stream, seed, most):
        found += plain(parser.feed(piece))
    assert parser.broken is None
    assert found == commands
    assert parser.held == 0
    assert all(large.finished for large in opened)
    large = sum(len(a) > STREAMED_FROM for command in commands for a in command)
    assert len(opened) == large, "exactly the large arguments are streamed"


def test_one_read_holds_pipelines_inline_and_a_cut_command() -> None:
    parser, _ = make()
    data = (
        b"PING\r\n" + encode([b"GET", b"k"]) + b'SET a "b c"\n*0\r\n*-1\r\n\r\n' + b"*2\r\n$4\r\n"
    )
    assert plain(parser.feed(data)) == [[b"PING"], [b"GET", b"k"], [b"SET", b"a", b"b c"]]
    assert plain(parser.feed(b"ECHO\r\n$1\r\nx\r\nPI")) == [[b"ECHO", b"x"]]
    assert plain(parser.feed(b"NG\r\n")) == [[b"PING"]]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*1\r\n:5\r\n", "expected '$', got ':'"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
        (b"*1\r\n$999999999\r\n", "invalid bulk length (limit value_bytes_max is "),
        (b"*1\r\n$3\r\nabcd\r\n", "must end with CRLF"),
        (b"*70000\r\n", "65536 arguments at most"),
        (b"*1" + b"0" * 40, "too big mbulk count string"),
        (b"x" * 70_000, "it has 65536 bytes at most"),
        (b'SET "a\r\n', "unbalanced quotes"),
    ],
)
def test_broken_requests_are_named_as_redis_names_them(data: bytes, text: str) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))][:200]):
        parser, _ = make()
        items = [item for piece in pieces for item in parser.feed(piece)]
        if len(pieces) == 1 or len(data) <= 200:
            assert items == []
            assert parser.broken is not None
            assert text in parser.broken
            assert parser.feed(encode([b"PING"])) == []


def test_a_simple_string_as_argument_is_taken_only_where_hiredis_reads_it() -> None:
    whole, _ = make()
    assert plain(whole.feed(b"*1\r\n+PING\r\n")) == [[b"PING"]]
    parts, _ = make()
    assert parts.feed(b"*1\r\n") == []
    assert parts.feed(b"+PING\r\n") == []
    assert parts.broken == "ERR Protocol error: expected '$', got '+'"


def test_announced_sizes_allocate_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in (
        b"*1000000000\r\n",
        b"*1\r\n*1000000000\r\n",
        b">1000000000\r\n",
        b"*1\r\n>1000000000\r\n",
        encode([b"PING"]) + b"*1\r\n>1000000000\r\n",
        b"*2\r\n$4\r\nPING\r\n>1000000000\r\n",
    ):
        parser, _ = make()
        parser.feed(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_command_over_its_limit_is_read_to_the_end_and_refused() -> None:
    parser, _ = make(Limits(command_bytes_max=100_000))
    command = [b"MSET"] + [b"x" * 50_000] * 6
    data = encode(command) + encode([b"PING"])
    items = [item for piece in cut(data, 1, 60_000) for item in parser.feed(piece)]
    assert isinstance(items[0], Refused)
    assert "command_bytes_max (100000 bytes)" in items[0].text
    assert plain(items[1:]) == [[b"PING"]]


def test_going_away_gives_up_what_was_begun() -> None:
    parser, opened = make()
    parser.feed(encode([b"SET", b"k", b"v" * 100_000])[:90_000])
    assert parser.receiving_large
    parser.abort()
    assert opened[0].aborted
    parser, opened = make()
    parser.feed(encode([b"MSET", b"a", b"v" * 70_000, b"b"])[:-1] + b"x")
    assert parser.broken is not None
    assert opened[0].aborted


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_an_error_or_commands(pieces: list[bytes]) -> None:
    parser, _ = make()
    for piece in pieces:
        if piece:
            for item in parser.feed(piece):
                assert isinstance(item, Refused) or all(isinstance(a, bytes) for a in item)


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_mutated_requests_never_raise(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(
        encode([b"SET", b"key", b"v" * rng.choice((3, 300, 70_000))]) + encode([b"GET", b"key"]) * 3
    )
    for _ in range(rng.randint(1, 6)):
        position = rng.randrange(len(data))
        action = rng.random()
        if action < 0.5:
            data[position] = rng.choice(b"*$>:~%#_\r\n0123456789-+ x\x00\xff")
        elif action < 0.75:
            del data[position : position + rng.randint(1, 10)]
        else:
            data[position:position] = rng.choice((b"\r\n", b"*3\r\n", b"$-1\r\n", b"*100000\r\n"))
    parser, _ = make()
    for piece in cut(bytes(data), seed, 5000):
        parser.feed(piece)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"  get   a ", [b"get", b"a"]),
        (b'set k "a\\x00\\n\\"b" ', [b"set", b"k", b'a\x00\n"b']),
        (b"set k 'a\\'b \\n'", [b"set", b"k", b"a'b \\n"]),
        (b"''", [b""]),
        (b"", []),
    ],
)
def test_inline_words(line: bytes, words: list[bytes]) -> None:
    assert split_inline(line) == words


@pytest.mark.parametrize("line", [b'"abc', b"'abc", b'"a"b', b'a"b"', b"'"])
def test_inline_quotes_must_balance(line: bytes) -> None:
    with pytest.raises(UnbalancedQuotes):
        split_inline(line)
