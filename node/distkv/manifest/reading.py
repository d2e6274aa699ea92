"""Reading a manifest file, with errors that name the field, its place and the remedy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distkv.manifest.model import API_VERSION, KIND, Cluster, ClusterSpec


class ManifestError(Exception):
    """The manifest is refused; the message has one line for each reason."""


def read(path: Path) -> Cluster:
    """The one DistKVCluster of a YAML (or JSON) file. Raises ManifestError."""
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: is not valid YAML: {error}") from None
    clusters = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(clusters) != 1:
        raise ManifestError(
            f"{path}: must hold exactly one resource of kind {KIND} ({API_VERSION}), "
            f"it holds {len(clusters)}"
        )
    return parse(clusters[0], str(path))


def parse(content: Any, place: str) -> Cluster:
    """The model of what was read; `place` is named in errors. Raises ManifestError."""
    try:
        return Cluster.model_validate(content)
    except ValidationError as error:
        raise ManifestError("\n".join(_lines(error, place))) from None


def cluster_of(name: str, data_shards: int, parity_shards: int) -> Cluster:
    """A manifest from the geometry alone. Raises ManifestError."""
    spec = {"dataShards": data_shards, "parityShards": parity_shards}
    return parse(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec},
        "flags --data-shards and --parity-shards",
    )


def _lines(error: ValidationError, place: str) -> list[str]:
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"there is no such field{_nearest(fault['loc'])}"
        elif fault["type"] == "missing":
            message = "is not set"
        elif not isinstance(fault["input"], dict):
            message = f"{fault['input']!r} is wrong: {message[:1].lower()}{message[1:]}"
        lines.append(f"{place}: {field}: {message}")
    return lines


def _nearest(location: tuple[int | str, ...]) -> str:
    """What was probably meant by the last name of `location`."""
    model: Any = ClusterSpec if location[:1] == ("spec",) else Cluster
    for part in location[1:-1]:
        names = _fields(model)
        model = names.get(str(part))
        if model is None:
            return ""
    names = _fields(model)
    near = difflib.get_close_matches(str(location[-1]), list(names), 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are: {', '.join(names)}" if names else ""


def _fields(model: Any) -> dict[str, Any]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return {}
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}
