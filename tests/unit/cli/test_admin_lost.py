"""What the nodes found out, put together."""

from __future__ import annotations

from typing import Any

from distkv.cli.admin_lost import merged


def entry(key: bytes, value: int, shards: int, since: int) -> dict[str, Any]:
    return {
        "key": key.decode(),
        "key_hex": key.hex(),
        "value_id": [1, 1, value],
        "shards": shards,
        "data_shards": 3,
        "since_ms": since,
    }


def test_lists_of_several_nodes_are_one() -> None:
    one = [entry(b"b", 1, 1, 50), entry(b"a", 2, 0, 60)]
    other = [entry(b"b", 1, 2, 40), entry(b"c", 3, 1, 70)]
    assert merged([one, other, []]) == [
        entry(b"a", 2, 0, 60),
        entry(b"b", 1, 2, 40),
        entry(b"c", 3, 1, 70),
    ]
    assert one[0]["shards"] == 1, "what was given stays as it is"
