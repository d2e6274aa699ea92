"""Images are the same bytes for the same input, and say what containerd and Docker look for."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from testbed.agents.quantity import to_bytes, to_quantity
from testbed.errors import LabError
from testbed.image.debian import merged, package_files
from testbed.image.layer import Layer
from testbed.image.oci import full_name, identity, write_archive
from testbed.image.site import requirements_for, runtime_names
from testbed.namespaces.tools import (
    kubernetes_version,
    linker_flags,
    lock_key,
    required_go,
)


def layer(*paths: str) -> Layer:
    found = Layer()
    for path in paths:
        found.file(path, path.encode())
    return found


def test_a_layer_does_not_depend_on_the_order_of_its_making() -> None:
    assert layer("a/b", "c").to_bytes() == layer("c", "a/b").to_bytes()


def test_a_layer_makes_the_folders_above_a_file() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer("a/b/c").to_bytes())) as archive:
        members = archive.getmembers()
    assert [(m.name, m.isdir()) for m in members] == [("a", True), ("a/b", True), ("a/b/c", False)]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


def test_removing_a_folder_takes_what_is_below_and_nothing_beside() -> None:
    found = layer("usr/man/x", "usr/manual")
    found.remove("usr/man")
    assert found.paths() == ["usr", "usr/manual"]


def test_an_archive_says_what_containerd_and_docker_look_for(tmp_path: Path) -> None:
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    content = layer("file").to_bytes()
    digest = write_archive(first, "distkv:dev", [content], {"User": "10001:10001"})
    assert write_archive(second, "distkv:dev", [content], {"User": "10001:10001"}) == digest
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["digest"] == digest
    name = entry["annotations"]["io.containerd.image.name"]
    assert name == "docker.io/library/distkv:dev"
    docker = json.loads(files["manifest.json"])[0]
    assert docker["RepoTags"] == ["distkv:dev"]
    assert files[docker["Layers"][0]] == content
    assert json.loads(files[docker["Config"]])["config"] == {"User": "10001:10001"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("distkv:dev", "docker.io/library/distkv:dev"),
        ("team/distkv:1", "docker.io/team/distkv:1"),
        ("testbed.local/pause:1", "testbed.local/pause:1"),
        ("localhost/distkv:1", "localhost/distkv:1"),
    ],
)
def test_full_names(name: str, wanted: str) -> None:
    assert full_name(name) == wanted


def test_paths_of_packages_follow_the_links_into_usr() -> None:
    assert merged("./bin/sh") == "usr/bin/sh"
    assert merged("./lib64/ld.so") == "usr/lib64/ld.so"
    assert merged("./etc/passwd") == "etc/passwd"
    assert merged("./bin") == "bin"
    assert merged("./.hidden") == ".hidden"


def test_file_names_in_what_apt_prints() -> None:
    listing = "'x://a/b_1%3a2_amd64.deb' b_1%3a2_amd64.deb 12 SHA256:00\nnoise\n"
    assert package_files(listing) == ["b_1%3a2_amd64.deb"]


def test_the_image_gets_only_what_the_project_needs_to_run() -> None:
    names = runtime_names()
    assert {"kopf", "rocksdict", "pyeclib", "multidict"} <= set(names)
    assert not {"pytest", "mypy", "ruff", "hypothesis", "distkv"} & set(names)


def test_requirements_keep_their_hashes() -> None:
    first, second = "a==1 \\\n    --hash=sha256:aa\n    # via x", "b.c==2 \\\n    --hash=sha256:bb"
    constraints = f"# head\n{first}\n{second}\n"
    assert requirements_for(["b-c"], constraints) == "b.c==2 \\\n    --hash=sha256:bb\n"
    with pytest.raises(LabError, match=r"constraints.txt pins no d"):
        requirements_for(["d"], constraints)


def test_versions_come_from_go_mod() -> None:
    text = "module x\n\ngo 1.25.0\n\nrequire (\n\tk8s.io/kubernetes v1.35.4\n)\n"
    assert kubernetes_version(text) == "v1.35.4"
    assert required_go(text) == (1, 25, 0)
    assert "version.gitMinor=35" in linker_flags("v1.35.4")
    with pytest.raises(LabError, match=r"requires no k8s.io/kubernetes"):
        kubernetes_version("module x\n")


def test_another_compiler_is_another_cache_entry() -> None:
    assert lock_key("1.26.8") == lock_key("1.26.8") != lock_key("1.26.9")


@pytest.mark.parametrize(
    ("text", "count"),
    [("1Gi", 2**30), ("1.5Mi", 3 * 2**19), ("400M", 4 * 10**8), ("12", 12), ("1e3", 1000)],
)
def test_quantities(text: str, count: int) -> None:
    assert to_bytes(text) == count


@pytest.mark.parametrize("text", ["1Gi", "300Mi", "12", "5Ki", "2Ti"])
def test_quantities_come_back_as_they_were(text: str) -> None:
    assert to_quantity(to_bytes(text)) == text


def test_an_archive_can_be_told_by_its_name_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    digest = write_archive(path, "distkv:dev", [layer("a").to_bytes()], {})
    assert identity(path) == ("docker.io/library/distkv:dev", digest)
    path.write_bytes(layer("index.html").to_bytes())
    assert identity(path) is None
    path.write_text("no archive")
    assert identity(path) is None
