"""An OCI image archive, as `skopeo` and `docker save` write them, written without either."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01T00:00:00Z"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def full_name(name: str) -> str:
    """The name that containerd looks an image up by when a pod says `name`."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def identity(archive: Path) -> tuple[str, str] | None:
    """The full name and digest of the only image in an OCI archive; None if it is another kind."""
    try:
        with tarfile.open(archive) as content:
            member = content.extractfile("index.json")
            entries = json.loads(member.read())["manifests"] if member else []
    except (KeyError, ValueError, tarfile.TarError):
        return None
    names = [e.get("annotations", {}).get("io.containerd.image.name") for e in entries]
    return (names[0], entries[0]["digest"]) if len(entries) == 1 and names[0] else None


def architecture() -> str:
    return ARCHITECTURES[platform.machine()]


def write_archive(path: Path, name: str, layers: Sequence[bytes], config: Mapping[str, Any]) -> str:
    """Writes an image of uncompressed layers and returns its digest (that of the manifest).

    `config` is the OCI runtime configuration: User, Env, WorkingDir and the like.
    """
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    descriptors = [blob(layer, "layer.v1.tar") for layer in layers]
    image = {
        "architecture": architecture(),
        "os": "linux",
        "created": EPOCH,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [d["digest"] for d in descriptors]},
        "history": [{"created": EPOCH}] * len(descriptors),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(image), "config.v1+json"),
        "layers": descriptors,
    }
    entry = blob(_json(manifest), "manifest.v1+json")
    entry["annotations"] = {
        "io.containerd.image.name": full_name(name),
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/sha256/{digest}": content for digest, content in sorted(blobs.items())}
    # Docker's own loader reads manifest.json (and, since version 25, the OCI files as well).
    files["manifest.json"] = _json(
        [
            {
                "Config": f"blobs/sha256/{manifest['config']['digest'].removeprefix('sha256:')}",  # type: ignore[index]
                "RepoTags": [name],
                "Layers": [
                    f"blobs/sha256/{d['digest'].removeprefix('sha256:')}" for d in descriptors
                ],
            }
        ]
    )
    _write_tar(path, files)
    return str(entry["digest"])


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    partial.replace(path)
