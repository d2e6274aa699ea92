"""Any node takes any request: both doors, all sizes, byte-exact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
import redis
from integration.cluster.harness import HOST, Cluster, wait_until

KIB, MIB = 1024, 1024 * 1024
SIZES = (0, 1, 4096, 4097, 65_536, 256 * KIB, 256 * KIB + 1, MIB, 5 * MIB + 13, 20 * MIB)


def pieces(value: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(value), size):
        yield value[start : start + size]


@pytest.mark.parametrize("size", SIZES)
def test_a_value_written_through_one_node_is_read_through_every_node(
    shared: Cluster, size: int
) -> None:
    value = os.urandom(size)
    writer = shared.nodes[size % 5]
    key = f"sizes-{size}"
    if size % 2:
        assert writer.redis().set(key, value) is True
    else:
        assert writer.request("PUT", f"/v1/kv/{key}", value).status == 201
    for node in shared.nodes:
        assert node.redis().get(key) == value
        answer = node.request("GET", f"/v1/kv/{key}")
        assert answer.status == 200
        assert answer.body == value
        assert node.request("HEAD", f"/v1/kv/{key}").headers["content-length"] == str(size)


def test_a_body_of_unknown_length_streams_in_and_parts_of_it_stream_out(shared: Cluster) -> None:
    value = os.urandom(9 * MIB + 4321)
    writer, reader = shared.nodes[1], shared.nodes[4]
    answer = writer.request("PUT", "/v1/kv/streamed", pieces(value, 100_001))
    assert answer.status == 201, answer
    assert reader.request("GET", "/v1/kv/streamed").body == value
    start, stop = 3 * MIB + 7, 7 * MIB + 1
    part = reader.request("GET", "/v1/kv/streamed", headers={"Range": f"bytes={start}-{stop - 1}"})
    assert part.status == 206
    assert part.body == value[start:stop]


def test_a_download_that_is_broken_off_leaves_nothing_behind(shared: Cluster) -> None:
    value = os.urandom(12 * MIB)
    node = shared.nodes[2]
    assert node.request("PUT", "/v1/kv/broken-off", value).status == 201
    for _ in range(5):
        connection = HTTPConnection(HOST, node.ports["http"], timeout=30)
        connection.request("GET", "/v1/kv/broken-off")
        answer = connection.getresponse()
        assert answer.read(100_000) == value[:100_000]
        connection.close()

    def idle() -> bool:
        status = node.status()
        return status is not None and status["memory_in_flight"] == 0

    wait_until(idle, "the memory of the downloads to be free again")
    assert node.redis().get("broken-off") == value


def test_an_upload_that_is_broken_off_changes_nothing(shared: Cluster) -> None:
    node = shared.nodes[3]
    assert node.redis().set("half", b"whole")
    connection = HTTPConnection(HOST, node.ports["http"], timeout=30)
    connection.putrequest("PUT", "/v1/kv/half")
    connection.putheader("Content-Length", str(4 * MIB))
    connection.endheaders()
    connection.send(os.urandom(2 * MIB))
    wait_until(lambda: (node.status() or {}).get("memory_in_flight"), "the upload to be under way")
    connection.close()

    def idle() -> bool:
        statuses = shared.statuses().values()
        return all(s["memory_in_flight"] == 0 and s["shards_pending"] == 0 for s in statuses)

    wait_until(idle, "the pieces of the broken upload to be dropped everywhere")
    assert shared.nodes[0].redis().get("half") == b"whole"


@pytest.mark.parametrize("size", [10, 50_000])
def test_etags_guard_writes_whichever_node_is_asked(shared: Cluster, size: int) -> None:
    key = f"/v1/kv/etag-{size}"
    first, second, third = os.urandom(size), os.urandom(size), os.urandom(size)
    a, b, c = shared.nodes[0], shared.nodes[2], shared.nodes[4]
    tag = a.request("PUT", key, first, {"If-None-Match": "*"}).headers["etag"]
    refused = b.request("PUT", key, second, {"If-None-Match": "*"})
    assert refused.status == 412
    assert refused.json["error"] == "condition_failed"
    newer = b.request("PUT", key, second, {"If-Match": tag})
    assert newer.status == 200
    assert newer.headers["etag"] != tag
    assert c.request("PUT", key, third, {"If-Match": tag}).status == 412
    assert c.request("GET", key).body == second
    assert c.request("GET", key, headers={"If-None-Match": newer.headers["etag"]}).status == 304
    assert a.request("DELETE", key, headers={"If-Match": tag}).status == 412
    assert a.request("DELETE", key, headers={"If-Match": newer.headers["etag"]}).status == 204
    assert b.request("GET", key).status == 404


@pytest.mark.parametrize("size", [10, 50_000])
def test_an_idempotency_key_makes_a_retry_at_another_node_count_once(
    shared: Cluster, size: int
) -> None:
    key, once = f"/v1/kv/once-{size}", {"Idempotency-Key": f"put-{size}"}
    value, later = os.urandom(size), os.urandom(size)
    first = shared.nodes[0].request("PUT", key, value, once)
    assert first.status == 201
    assert shared.nodes[1].request("PUT", key, later).status == 200
    again = shared.nodes[2].request("PUT", key, value, once)
    assert (again.status, again.json) == (201, first.json)
    assert shared.nodes[3].request("GET", key).body == later


def test_increments_with_one_idempotency_key_count_once(shared: Cluster) -> None:
    once = {"Idempotency-Key": "increment-1"}
    for node in shared.nodes:
        answer = node.request("POST", "/v1/kv/counter?increment=5", headers=once)
        assert (answer.status, answer.json) == (200, {"value": 5})
    assert shared.nodes[0].redis().incr("counter") == 6


def test_options_of_set_and_their_kin(shared: Cluster) -> None:
    a, b = shared.nodes[0].redis(), shared.nodes[3].redis()
    big = os.urandom(30_000)
    assert a.set("options", big, nx=True) is True
    assert b.set("options", b"no", nx=True) is None
    assert b.set("options", b"small", xx=True, get=True) == big
    assert a.getset("options", big) == b"small"
    assert b.append("options", b"tail") == len(big) + 4
    assert a.getrange("options", len(big) - 2, -1) == big[-2:] + b"tail"
    assert b.strlen("options") == len(big) + 4
    assert a.expire("options", 100) is True
    assert 0 < b.ttl("options") <= 100
    assert a.persist("options") is True
    assert b.ttl("options") == -1
    assert a.getdel("options") == big + b"tail"
    assert b.exists("options") == 0
    assert a.mset({"m1": b"1", "m2": big}) is True
    assert b.mget("m1", "m2", "m3") == [b"1", big, None]


def test_a_key_expires_on_every_node_at_once(shared: Cluster) -> None:
    a, b = shared.nodes[1].redis(), shared.nodes[2].redis()
    assert a.set("short", os.urandom(20_000), px=700)
    wait_until(lambda: b.get("short") is None, "the key to expire")
    for node in shared.nodes:
        assert node.redis().get("short") is None
    assert a.set("short", b"again", nx=True) is True


def test_scan_sees_every_key_through_any_node(shared: Cluster) -> None:
    names = {f"scan-{number:03}".encode() for number in range(250)}
    shared.nodes[0].redis().mset(dict.fromkeys(names, b"x"))
    for node in shared.nodes:
        assert set(node.redis().scan_iter(match="scan-*", count=37)) == names
    listed, start = set(), ""
    while True:
        page = shared.nodes[4].request("GET", f"/v1/kv?prefix=scan-&limit=100{start}").json
        listed |= {row["key"].encode() for row in page["keys"]}
        if not page.get("cursor"):
            break
        start = f"&cursor={page['cursor']}"
    assert listed == names


def test_errors_name_the_field_or_the_limit(shared: Cluster) -> None:
    node = shared.nodes[0]
    with pytest.raises(redis.ResponseError, match="key_bytes_max"):
        node.redis().set("k" * 5000, b"")
    answer = node.request("PUT", "/v1/kv/" + "k" * 5000, b"")
    assert answer.status == 413
    assert "key_bytes_max" in answer.json["message"]
    too_long = {"X-DistKV-Timeout-Ms": "999999999"}
    answer = node.request("GET", "/v1/kv/x", headers=too_long)
    assert answer.status == 400
    assert "X-DistKV-Timeout-Ms" in answer.json["message"]
    answer = node.request("GET", "/v1/admin/identity", door="admin")
    assert answer.status == 401
    assert "X-DistKV-Token" in answer.json["message"]
