"""A small Debian root as a layer: packages of Debian's archive, unpacked without installing them.

apt resolves the packages for an imaginary empty machine and fetches them (it checks their
signatures as always); their files go straight into the layer. No maintainer script is run, so
neither root nor a chroot is needed, and what little the scripts would do is done here.
"""

from __future__ import annotations

import io
import posixpath
import subprocess
import tarfile
import time
from pathlib import Path

from testbed.errors import LabError
from testbed.image.layer import Layer
from testbed.run import run

# busybox-static is the shell for looking around; the two libraries are what wheels link to.
PACKAGES = ("base-files", "python3.11", "libstdc++6", "libgcc-s1", "busybox-static")
UNNEEDED = ("dpkg", "tar", "mawk", "readline-common")  # only maintainer scripts would use these
USER, USER_ID = "distkv", 10001

# Since Debian 12 these are links into /usr; packages still name some files by the old paths.
MERGED = ("bin", "sbin", "lib", "lib64")
LEFT_OUT = (
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/applications",
    "usr/share/pixmaps",
    "usr/lib/python3.11/ensurepip",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/tkinter",
    "usr/lib/python3.11/turtledemo",
)
STALE_AFTER = 24 * 3600.0  # seconds after which the lists of packages are fetched again


def fetch_packages(cache: Path) -> list[Path]:
    """The .deb files of PACKAGES and all that they depend on, sorted by name."""
    state, archives = cache / "state", cache / "archives"
    for folder in (state / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": cache,
        "Dir::Cache::archives": archives,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
    }
    command = ["apt-get", "-qq"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    stamp = state / "fetched"
    if not stamp.exists() or time.time() - stamp.stat().st_mtime > STALE_AFTER:
        run([*command, "update"], timeout=600)
        stamp.touch()
    # Two runs, because --print-uris names only what is not in the archives yet: the first fetches,
    # the second looks into a cache that is empty for it and so names everything.
    run([*command, "--yes", "--download-only", "install", *PACKAGES], timeout=900)
    nothing = ["-o", f"Dir::Cache::archives={cache / 'nothing'}"]
    (cache / "nothing" / "partial").mkdir(parents=True, exist_ok=True)
    listing = run([*command, *nothing, "--print-uris", "--yes", "install", *PACKAGES]).stdout
    wanted = package_files(listing)
    if not wanted:
        raise LabError(f"apt resolves {' '.join(PACKAGES)} to nothing", f"delete {cache}")
    return [archives / name for name in wanted]


def package_files(listing: str) -> list[str]:
    """The file names in what `apt-get --print-uris` prints: 'URI' NAME SIZE HASH a line."""
    return sorted(line.split()[1] for line in listing.splitlines() if line.startswith("'"))


def package_name(path: Path) -> str:
    return path.name.split("_")[0]


def root_layer(packages: list[Path]) -> Layer:
    layer = Layer()
    for name in MERGED:
        layer.folder(f"usr/{name}")
        layer.link(name, f"usr/{name}")
    for package in packages:
        if package_name(package) not in UNNEEDED:
            _unpack(package, layer)
    for unwanted in LEFT_OUT:
        layer.remove(unwanted)
    for path in layer.paths():
        documented = path.startswith("usr/share/doc/") and path.count("/") > 3
        if documented and not path.endswith("/copyright"):
            layer.remove(path)
    _finish(layer, packages)
    return layer


def _unpack(package: Path, layer: Layer) -> None:
    content = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = merged(member.name)
            if path in (".", *MERGED):
                continue
            mode = member.mode & 0o1777  # nothing in the image may change its user
            if member.isdir():
                if path not in layer:
                    layer.folder(path, mode)
            elif member.issym():
                layer.link(path, member.linkname)
            elif member.islnk():
                layer.file(path, layer.read(merged(member.linkname)), mode)
            elif member.isreg():
                file = archive.extractfile(member)
                assert file is not None
                layer.file(path, file.read(), mode)


def merged(path: str) -> str:
    """Where a path of a package lies in a root whose /bin and /lib are links into /usr."""
    path = posixpath.normpath(path).lstrip("/")
    first = path.partition("/")[0]
    return f"usr/{path}" if first in MERGED and "/" in path else path


def _finish(layer: Layer, packages: list[Path]) -> None:
    """What maintainer scripts would have done, and what lets a person look around."""
    for folder in ("proc", "sys", "dev", "run", "root", "home", "etc", "var/lib", "var/log"):
        layer.folder(folder)
    for folder in ("tmp", "var/tmp"):
        layer.folder(folder, 0o1777)
    users = f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}::/tmp:/bin/sh\n"
    layer.file("etc/passwd", f"{users}nobody:x:65534:65534::/:/bin/false\n".encode())
    layer.file("etc/group", f"root:x:0:\n{USER}:x:{USER_ID}:\nnogroup:x:65534:\n".encode())
    layer.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("python3", "python"):
        layer.link(f"usr/bin/{name}", "python3.11")
    for applet in _applets(layer):
        if f"usr/bin/{applet}" not in layer and f"usr/sbin/{applet}" not in layer:
            layer.link(f"usr/bin/{applet}", "busybox")
    names = "\n".join(package.name for package in packages)
    layer.file("usr/share/distkv/debian-packages", f"{names}\n".encode())


def _applets(layer: Layer) -> list[str]:
    """Names that this busybox answers to; the binary lists them itself."""
    binary = layer.read("usr/bin/busybox")
    start = binary.find(b"[\0[[\0")  # the table of names, sorted, each ended by a zero
    if start < 0:
        raise LabError("busybox has no table of names where one was expected")
    names: list[str] = []
    for name in binary[start : start + 8192].split(b"\0"):
        if not name or (names and name.decode(errors="replace") < names[-1]):
            break
        names.append(name.decode())
    return names
