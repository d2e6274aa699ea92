"""Parts of import and export that need no store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distkv.cli.client import key_of, key_path, list_path
from distkv.cli.transfer import (
    _NoPlace,
    _place,
    differences,
    digest_of,
    find_files,
    listing_line,
    read_listing,
)


def test_every_readable_file_is_found_by_its_relative_name(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "deep").write_bytes(b"123")
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").symlink_to(tmp_path / "b")
    found = find_files(tmp_path)
    assert [(source.name, source.size) for source in found.sources] == [
        ("a", 0),
        ("b/c/deep", 3),
        ("b/link", 0),
    ]
    assert found.unreadable == []
    assert sorted(found.others) == [
        "broken: No such file or directory",
        "folder: a link to a directory",
        "pipe: no regular file",
    ]


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "open").write_bytes(b"x")
    # The superuser may read everything, so the mode of the file would show nothing.
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "secret")
    found = find_files(tmp_path)
    assert [source.name for source in found.sources] == ["open"]
    assert found.unreadable == ["secret: Permission denied"]


def test_a_listing_is_what_sha256sum_reads_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    digest = digest_of(path)
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    listing = tmp_path / "listing"
    listing.write_text(f"{digest}  with  two spaces\n{digest}  torn")
    assert read_listing(listing) == {"with  two spaces": digest}
    assert read_listing(tmp_path / "missing") == {}


def test_a_listing_holds_every_name_that_a_file_may_have(tmp_path: Path) -> None:
    names = ["plain", "a\nb", "back\\slash", "\\n", "\r", "\u2028\x85\x0c", "\udcff"]
    listing = tmp_path / "listing"
    digest = "0" * 64
    lines = "".join(f"{listing_line(digest, name)}\n" for name in names)
    listing.write_bytes(lines.encode("utf-8", "surrogateescape"))
    assert read_listing(listing) == dict.fromkeys(names, digest)
    # As `sha256sum` writes it.
    assert listing_line(digest, "a\nb\\c") == f"\\{digest}  a\\nb\\\\c"


def test_differences_are_told_apart() -> None:
    expected = {"a": "1", "b": "2", "c": "3"}
    assert differences(expected, {"a": "1", "b": "x", "d": "4"}) == [
        "b: different",
        "c: missing",
        "d: not expected",
    ]
    assert differences(expected, dict(expected)) == []


def test_a_key_cannot_leave_the_directory_it_is_exported_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "out").symlink_to(tmp_path)
    assert _place(target, "a/b") == target / "a" / "b"
    for name in ("../x", "a/../../x", "/etc/passwd", "out/x", "", "a/", ".", "a//b", "./a", "\0"):
        with pytest.raises(_NoPlace):
            _place(target, name)


def test_keys_travel_escaped() -> None:
    assert key_path("a/b c?#%é") == "/v1/kv/a%2Fb%20c%3F%23%25%C3%A9"
    assert key_path("\udcff") == "/v1/kv/%FF"
    assert list_path("a/", 10, "a/b") == "/v1/kv?prefix=a%2F&limit=10&start=a%2Fb"
    assert list_path("", 1, "a", "b", "YQ==") == "/v1/kv?prefix=&limit=1&end=b&cursor=YQ%3D%3D"
    assert key_of({"key": "/w==", "encoding": "base64"}) == "\udcff"
