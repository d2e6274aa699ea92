"""The project's image runs as the charts will run it: not as root, on a read-only root."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from testbed.harness import Cluster, hack_kube
from testbed.manifests import IDLE, RESTRICTED, pod
from testbed.paths import CHECKOUT, cache_root
from testbed.run import run

pytestmark = pytest.mark.long
"""The test bed itself: what stands on it is tested each time."""

IMAGE = "distkv:dev"


@pytest.fixture(scope="module")
def loaded(cluster: Cluster) -> Cluster:
    run([CHECKOUT / "hack" / "image", "--load"], timeout=900)
    return cluster


def test_the_image_runs_under_the_restricted_profile(loaded: Cluster) -> None:
    with loaded.space("restricted") as space:
        manifest = pod("store")
        container = manifest["spec"]["containers"][0]
        container |= {"image": IMAGE, "command": list(IDLE)}
        # No runAsUser: the user must come from the image, or runAsNonRoot refuses to start it.
        container["securityContext"] = {k: v for k, v in RESTRICTED.items() if k != "runAsUser"}
        space.apply(manifest)
        space.ready("pod")
        assert space.run("store", "id", "-u").strip() == "10001"
        assert "Usage" in space.run("store", "distkv", "--help")
        program = "import distkv, distkv_operator, kopf, rocksdict; print(distkv.__path__[0])"
        where = space.run("store", "python", "-c", program)
        assert where.strip() == "/usr/local/lib/python3.11/dist-packages/distkv"
        assert not space.attempt("store", "touch", "/usr/file")


SOURCES = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml", "hack", "node", "operator")


def snapshot(folder: Path, python: str) -> Path:
    """A checkout of what is here now, in a place of its own."""
    without = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=without)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    (folder / ".venv").symlink_to(Path(python).parent.parent)
    return folder


@pytest.mark.timeout(900)
def test_the_same_sources_give_the_same_image(tmp_path: Path) -> None:
    """Built twice, from two folders, the second time with nothing in the cache but downloads."""
    first = snapshot(tmp_path / "first", sys.executable)
    second = tmp_path / "somewhere" / "else"
    shutil.copytree(first, second, symlinks=True)
    caches = {first: cache_root().parent, second: tmp_path / "cache"}
    (tmp_path / "cache" / "distkv-testbed").mkdir(parents=True)
    (tmp_path / "cache" / "distkv-testbed" / "debian").symlink_to(cache_root() / "debian")
    images = []
    for seed, (folder, cache) in enumerate(caches.items()):
        settings = [f"PYTHONHASHSEED={seed}", f"XDG_CACHE_HOME={cache}"]
        output = folder / "image.tar"
        run(["env", *settings, folder / "hack" / "image", "--output", output], timeout=900)
        images.append(hashlib.sha256(output.read_bytes()).hexdigest())
    assert images[0] == images[1]


def test_loading_what_is_not_there_says_how_to_make_it(cluster: Cluster) -> None:
    with pytest.raises(Exception, match="hack/image"):
        hack_kube("load-image", "nowhere.tar")
