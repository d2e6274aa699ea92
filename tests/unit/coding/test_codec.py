"""The code: every k-subset of every geometry decodes, and nothing wrong passes for right."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkv.coding.checksum import checksum, extend
from distkv.coding.codec import HEADER_BYTES, SIZE_MAX, Codec, CodingError, codec
from distkv.core.configuration import NODES_MAX

GEOMETRIES = [(k, n) for n in range(1, NODES_MAX + 1) for k in range(1, n + 1)]


def sample(length: int, salt: int = 0) -> bytes:
    return bytes((i * 131 + (i >> 8) * 17 + salt * 29 + 7) % 256 for i in range(length))


@pytest.mark.parametrize(("k", "n"), GEOMETRIES)
def test_every_subset_decodes_and_every_piece_is_rebuilt(k: int, n: int) -> None:
    code = codec(k, n)
    for length in (k * 3 + 1, 1):
        stripe = sample(length, n)
        pieces = code.encode(stripe)
        assert len(pieces) == n
        for number, subset in enumerate(combinations(range(n), k)):
            chosen = {index: pieces[index] for index in subset}
            assert code.decode(chosen, length) == stripe, subset
            target = number % n
            assert code.rebuild(chosen, target, length) == pieces[target], (subset, target)


@pytest.mark.parametrize(("k", "n"), GEOMETRIES)
def test_cost_is_n_over_k(k: int, n: int) -> None:
    pieces = codec(k, n).encode(sample(6000))
    assert sum(map(len, pieces)) <= 6000 * n / k + n


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 5), (3, 5), (3, 3), (11, 12), (6, 12)])
def test_nothing_costs_nothing(k: int, n: int) -> None:
    code = codec(k, n)
    assert code.encode(b"") == [b""] * n
    assert code.decode(dict.fromkeys(range(n - k, n), b""), 0) == b""
    assert code.rebuild(dict.fromkeys(range(k), b""), n - 1, 0) == b""


def test_systematic() -> None:
    stripe = sample(1000)
    assert b"".join(codec(3, 5).encode(stripe)[:3]) == stripe
    assert codec(1, 4).encode(stripe) == [stripe] * 4
    assert b"".join(codec(4, 4).encode(stripe)) == stripe


def test_disk_format_does_not_drift() -> None:
    """Parity on disk must mean the same to every later version."""
    digests = [
        checksum(b"".join(codec(k, n).encode(sample(1001)))) for k, n in [(3, 5), (2, 4), (6, 12)]
    ]
    assert digests == [2551305735, 1085220641, 2837061593]


def test_any_buffer_is_taken() -> None:
    stripe = sample(777)
    expected = codec(3, 5).encode(stripe)
    assert codec(3, 5).encode(bytearray(stripe)) == expected
    assert codec(3, 5).encode(memoryview(b"_" + stripe)[1:]) == expected


def test_wrong_input_is_refused() -> None:
    code = codec(3, 5)
    pieces = dict(enumerate(code.encode(sample(100))))
    with pytest.raises(CodingError, match="2 pieces of 3"):
        code.decode({0: pieces[0], 4: pieces[4]}, 100)
    with pytest.raises(CodingError, match="bytes"):
        code.decode({0: pieces[0], 1: pieces[1], 4: pieces[4][:-1]}, 100)
    with pytest.raises(CodingError, match="no piece 5"):
        code.decode({0: pieces[0], 1: pieces[1], 5: pieces[4]}, 100)
    with pytest.raises(CodingError, match="no piece 7"):
        code.rebuild(pieces, 7, 100)
    for k, n in [(0, 3), (4, 3), (3, NODES_MAX + 1)]:
        with pytest.raises(CodingError, match="must hold"):
            Codec(k, n)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_wrong_pieces_never_pass_the_checksum(data: st.DataObject) -> None:
    """Swapped or altered pieces decode to something, and its CRC-32C betrays it."""
    k, n = data.draw(st.sampled_from([(2, 4), (3, 5), (5, 7), (1, 3)]))
    stripe = data.draw(st.binary(min_size=k * 4, max_size=200))
    pieces = codec(k, n).encode(stripe)
    subset = data.draw(st.permutations(range(n)))[:k]
    victim = data.draw(st.sampled_from(subset))
    if not pieces[victim]:
        return
    bad = bytearray(pieces[victim])
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    assert checksum(bytes(bad)) != checksum(pieces[victim])
    chosen = {i: bytes(bad) if i == victim else pieces[i] for i in subset}
    decoded = codec(k, n).decode(chosen, len(stripe))
    # A byte of a parity piece beyond the last data piece's end changes the padding only.
    assert decoded == stripe or checksum(decoded) != checksum(stripe)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=5000), st.sampled_from(GEOMETRIES), st.randoms(use_true_random=False))
def test_round_trip(stripe: bytes, geometry: tuple[int, int], random: object) -> None:
    k, n = geometry
    pieces = dict(enumerate(codec(k, n).encode(stripe)))
    order = list(range(n))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert codec(k, n).decode({i: pieces[i] for i in order[:k]}, len(stripe)) == stripe


def test_header_is_not_kept() -> None:
    assert SIZE_MAX == NODES_MAX
    assert HEADER_BYTES == 80
    assert [len(p) for p in codec(3, 5).encode(sample(300))] == [100] * 5


def test_checksum_is_castagnoli_and_incremental() -> None:
    assert checksum(b"123456789") == 0xE3069283
    assert checksum(b"") == 0
    assert extend(extend(0, b"1234"), b"56789") == 0xE3069283
