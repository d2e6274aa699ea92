"""Seats, stripes and pieces add up for every geometry."""

from hypothesis import given
from hypothesis import strategies as st

from distkv.coding import layout
from distkv.coding.codec import codec
from distkv.ids import ValueId

VALUE_IDS = st.builds(
    ValueId, st.integers(1, 2**63 - 1), st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1)
)


@given(VALUE_IDS, st.integers(1, 12))
def test_rotation_is_a_bijection(value_id: ValueId, size: int) -> None:
    shards = [layout.shard_of(ordinal, value_id, size) for ordinal in range(size)]
    assert sorted(shards) == list(range(size))
    assert [layout.ordinal_of(shard, value_id, size) for shard in shards] == list(range(size))


def test_parity_spreads_over_seats() -> None:
    first = [layout.ordinal_of(0, ValueId(9, 1, c), 5) for c in range(5)]
    assert sorted(first) == [0, 1, 2, 3, 4]


@given(st.integers(0, 5_000_000), st.sampled_from([1, 1000, layout.STRIPE_BYTES]))
def test_stripes_cover_the_value(length: int, stripe_bytes: int) -> None:
    if length > 5000 * stripe_bytes:
        length %= 5000
    count = layout.stripe_count(length, stripe_bytes)
    lengths = [layout.stripe_length(length, stripe_bytes, i) for i in range(count)]
    assert sum(lengths) == length
    assert all(each == stripe_bytes for each in lengths[:-1])
    assert layout.stripe_length(length, stripe_bytes, count) == 0


@given(st.integers(0, 3000), st.integers(1, 12), st.integers(0, 11))
def test_piece_lengths_are_those_of_the_codec(length: int, k: int, parity: int) -> None:
    n = min(12, k + parity)
    pieces = codec(k, n).encode(bytes(length))
    assert [len(p) for p in pieces] == [layout.piece_length(length, k, i) for i in range(n)]
    assert max(map(len, pieces)) == layout.piece_bytes(length, k)
    assert layout.shard_bytes(length, 100000, k) == layout.piece_bytes(length, k)
    assert layout.shard_bytes(length, 256, k) >= layout.piece_bytes(length, k)
