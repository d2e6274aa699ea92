"""The Python packages of the image: the project's wheel and exactly what it needs to run.

    python -m testbed.image.site FOLDER        used by the Dockerfile

Versions and hashes are those of constraints.txt, of which the image gets only what the project
requires, directly or through others: no test tools.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testbed.errors import LabError
from testbed.paths import CHECKOUT
from testbed.run import run

PROJECT = "distkv"
TARGET = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "implementation_version": "3.11.2",
    "extra": "",
}
# Wheels for glibc up to that of the image; the newest comes first, as pip prefers it.
GLIBC_MINOR = 36
RUN_BY_NAME = (PROJECT, "kopf")  # whose commands are put on the image's PATH
LEFT_OUT = ("bin",)


def runtime_names() -> list[str]:
    """The project's requirements and theirs, as installed beside this program."""
    found: set[str] = set()
    waiting = [PROJECT]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError as missing:
            raise LabError(f"package {name} is not installed here", "run hack/setup") from missing
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate(TARGET):
                waiting.append(requirement.name)
    return sorted(found - {PROJECT})


def requirements_for(names: list[str], constraints: str) -> str:
    """The entries of a constraints file with hashes that are about these packages."""
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", constraints):
        named = re.match(r"([A-Za-z0-9._-]+)\s*==", entry)
        if named:
            kept = [line for line in entry.splitlines() if not line.strip().startswith("#")]
            entries[canonicalize_name(named.group(1))] = "\n".join(kept)
    absent = [name for name in names if name not in entries]
    if absent:
        raise LabError(f"constraints.txt pins no {', '.join(absent)}", "run hack/lock")
    return "".join(f"{entries[name]}\n" for name in names)


def runtime_requirements() -> str:
    constraints = CHECKOUT / "constraints.txt"
    return requirements_for(runtime_names(), constraints.read_text())


def _pip(*arguments: str | Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800", "PIP_ROOT_USER_ACTION": "ignore"}
    command = arguments[0]
    options = quiet if command == "install" else quiet[:-1]
    run(
        [sys.executable, "-m", "pip", command, *options, *arguments[1:]],
        env=environment,
        timeout=900,
    )


def install_dependencies(folder: Path, requirements: str) -> None:
    """Every file is checked against its hash; nothing is built, so no compiler is involved."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch) / "requirements.txt"
        listing.write_text(requirements)
        _pip(
            "install",
            "--require-hashes",
            "--no-deps",
            "--only-binary=:all:",
            "--python-version=3.11",
            "--implementation=cp",
            *(f"--platform={platform}" for platform in platforms),
            "--target",
            folder,
            "-r",
            listing,
        )
    _strip(folder)


def install_project(folder: Path) -> None:
    """The project as a wheel, from a copy of its sources: the checkout is left as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", wheels, CHECKOUT)
        found = ["--no-deps", "--no-index", f"--find-links={wheels}"]
        _pip("install", PROJECT, *found, "--target", folder)
    _strip(folder)


def _strip(folder: Path) -> None:
    for unwanted in LEFT_OUT:
        shutil.rmtree(folder / unwanted, ignore_errors=True)
    # Lists of what pip installed name the Python that ran it, and scripts that are not kept.
    for listing in folder.glob("*.dist-info/RECORD"):
        listing.unlink()
    for cached in list(folder.rglob("__pycache__")):
        shutil.rmtree(cached)


def commands(folder: Path) -> dict[str, str]:
    """Name -> script, for the packages whose commands the image has."""
    scripts = {}
    for distribution in metadata.distributions(path=[str(folder)]):
        if canonicalize_name(distribution.metadata["Name"]) not in RUN_BY_NAME:
            continue
        for entry in distribution.entry_points.select(group="console_scripts"):
            scripts[entry.name] = (
                "#!/usr/bin/python3.11\n"
                "import sys\n"
                f"from {entry.module} import {entry.attr}\n"
                f"sys.exit({entry.attr}())\n"
            )
    return scripts


def main(folder: Path) -> None:
    packages = folder / "packages"
    packages.mkdir(parents=True)
    install_dependencies(packages, runtime_requirements())
    install_project(packages)
    (folder / "bin").mkdir()
    for name, script in commands(packages).items():
        path = folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
