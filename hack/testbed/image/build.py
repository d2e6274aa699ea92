"""`hack/image`: the image of the Dockerfile without a Docker daemon, as an OCI archive.

Three layers, by how often they change: Debian, the packages that the project needs, the project.
The first two are kept in the cache, so that a rebuild after a change of code takes seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.errors import LabError
from testbed.image import debian, site
from testbed.image.layer import Layer
from testbed.image.oci import write_archive
from testbed.locks import exclusive
from testbed.paths import CHECKOUT, PACKAGE, cache_root
from testbed.progress import Progress
from testbed.run import run

PACKAGES = "usr/local/lib/python3.11/dist-packages"
STANDARD_LIBRARY = "usr/lib/python3.11"
DEFAULT_TAG = "distkv:dev"
DEFAULT_OUTPUT = CHECKOUT / ".cache" / "distkv-image.tar"

DESCRIPTION = """\
Builds the image for node, gateway and operator without a Docker daemon, as an OCI archive, and
loads it into the running cluster if asked to. The same inputs give the same bytes.

  hack/image --load                 build, and load into the cluster of hack/kube
  hack/image --output image.tar     for another registry or machine (skopeo, docker load)
"""

CONFIG = {
    "User": f"{debian.USER_ID}:{debian.USER_ID}",
    "WorkingDir": "/",
    "Env": [
        "PATH=/usr/local/bin:/usr/bin:/usr/sbin",
        "LANG=C.UTF-8",
        "HOME=/tmp",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONUNBUFFERED=1",
    ],
}


def build(output: Path, tag: str, progress: Progress, more: Sequence[bytes] = ()) -> str:
    """Writes the archive and returns the image's digest. `more`: layers on top."""
    if sys.version_info[:2] != (3, 11):
        raise LabError(
            f"this is Python {sys.version_info.major}.{sys.version_info.minor}; the image has 3.11",
            "set PYTHON=python3.11 and run hack/setup: modules are compiled by what runs this",
        )
    with exclusive(cache_root() / "debian.lock"):
        packages = debian.fetch_packages(cache_root() / "debian")
    names = "\n".join(package.name for package in packages)
    root = _cached("root", names, lambda: _root(packages))
    progress.step(f"Debian: {len(packages)} packages, {_size(root)}")
    requirements = site.runtime_requirements()
    dependencies = _cached("packages", requirements, lambda: _dependencies(requirements))
    progress.step(f"Python packages: {requirements.count('==')}, {_size(dependencies)}")
    project = _project()
    progress.step(f"distkv: {_size(project)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    digest = write_archive(output, tag, [root, dependencies, project, *more], CONFIG)
    progress.step(f"{output} is {tag}, {digest}")
    return digest


def _size(layer: bytes) -> str:
    return f"{len(layer) / 2**20:.1f} MiB"


def _cached(kind: str, key: str, make: Callable[[], bytes]) -> bytes:
    """A layer from the cache, or made anew; the code that makes it is part of the key."""
    code = [path.read_bytes() for path in sorted((PACKAGE / "image").glob("*.py"))]
    digest = hashlib.sha256(b"\0".join([key.encode(), sys.version.encode(), *code])).hexdigest()
    path = cache_root() / "layers" / f"{kind}-{digest[:20]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(make())
        partial.replace(path)
    return path.read_bytes()


def _root(packages: list[Path]) -> bytes:
    layer = debian.root_layer(packages)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in layer.paths():
            if path.startswith(f"{STANDARD_LIBRARY}/") and path.endswith(".py"):
                target = folder / path.removeprefix(f"{STANDARD_LIBRARY}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(layer.read(path))
        _add(layer, folder, STANDARD_LIBRARY, "*.pyc", compile_first=True)
    return layer.to_bytes()


def _dependencies(requirements: str) -> bytes:
    layer = Layer()
    with tempfile.TemporaryDirectory() as scratch:
        site.install_dependencies(Path(scratch), requirements)
        _add(layer, Path(scratch), PACKAGES, "*", compile_first=True)
        for name, script in site.commands(Path(scratch)).items():
            layer.file(f"usr/local/bin/{name}", script.encode(), 0o755)
    return layer.to_bytes()


def _project() -> bytes:
    layer = Layer()
    with tempfile.TemporaryDirectory() as scratch:
        site.install_project(Path(scratch))
        _add(layer, Path(scratch), PACKAGES, "*", compile_first=True)
        for name, script in site.commands(Path(scratch)).items():
            layer.file(f"usr/local/bin/{name}", script.encode(), 0o755)
    return layer.to_bytes()


def _add(layer: Layer, folder: Path, prefix: str, pattern: str, compile_first: bool) -> None:
    if compile_first:
        program = PACKAGE / "image" / "bytecode.py"
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        run([sys.executable, "-I", program, folder, f"/{prefix}"], env=environment)
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            mode = 0o755 if path.suffix == ".so" else 0o644
            layer.file(f"{prefix}/{path.relative_to(folder)}", path.read_bytes(), mode)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("hack/image", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--tag", default=DEFAULT_TAG, help=f"NAME:TAG (default: {DEFAULT_TAG})")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the archive to write")
    parser.add_argument("--load", action="store_true", help="load it into the running cluster")
    options = parser.parse_args()
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            print(f"hack/image: needs {program} (a Debian or Ubuntu machine)", file=sys.stderr)
            return 1
    try:
        build(options.output, options.tag, Progress())
        if options.load:
            from testbed.cli import main as kube

            return kube(["load-image", str(options.output)])
    except LabError as error:
        print(f"hack/image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
