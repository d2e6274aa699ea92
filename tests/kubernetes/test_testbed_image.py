"""The project's image runs as the charts will run it: not as root, on a read-only root."""

from __future__ import annotations

import pytest
from testbed.harness import Cluster, hack_kube
from testbed.manifests import IDLE, RESTRICTED, pod
from testbed.paths import CHECKOUT
from testbed.run import run

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


def test_the_same_sources_give_the_same_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("images")
    for name, seed in (("first.tar", "1"), ("second.tar", "2")):
        environment = {"PYTHONHASHSEED": seed}
        command = ["env", *(f"{k}={v}" for k, v in environment.items())]
        run([*command, CHECKOUT / "hack" / "image", "--output", folder / name], timeout=900)
    assert (folder / "first.tar").read_bytes() == (folder / "second.tar").read_bytes()


def test_loading_what_is_not_there_says_how_to_make_it(cluster: Cluster) -> None:
    with pytest.raises(Exception, match="hack/image"):
        hack_kube("load-image", "nowhere.tar")
