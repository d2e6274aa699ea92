"""Reading the configuration: file, then environment, then flags; later ones win.

Whatever is wrong is reported at once, all of it, each with its name, its place and what to
do; nothing starts on a configuration that was not understood completely.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from distkv.config.schema import ROLES, Config, broken_relations
from distkv.config.sections import Section

PREFIX = "DISTKV_"
SEPARATOR = "__"


class Problem(NamedTuple):
    """One thing that is wrong: `field` is "section.field", `place` where it was said."""

    field: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} ({self.place}): {self.message}"


class ConfigError(Exception):
    """The configuration is refused; `problems` has every reason, in the order of the fields."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class _Layers:
    """What was said so far, and where."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        self.problems: list[Problem] = []

    def say(self, section: str, field: str, value: Any, place: str) -> None:
        """Set one field; a name that does not exist becomes a problem."""
        fault = unknown_name(section, field)
        if fault:
            self.problems.append(Problem(f"{section}.{field}", place, fault))
            return
        self.values.setdefault(section, {})[field] = value
        self.places[f"{section}.{field}"] = place

    def place(self, field: str) -> str:
        """Where `section.field` was set; for a default, where it could be."""
        return self.places.get(field, f"not set; as an environment variable {variable(field)}")


def section_fields() -> dict[str, list[str]]:
    """Every section's name and its fields, in the order of the schema."""
    return {
        name: list(model.model_fields)
        for name, info in Config.model_fields.items()
        if isinstance(model := info.annotation, type) and issubclass(model, Section)
    }


def variable(field: str) -> str:
    """The environment variable of "section.field"."""
    return PREFIX + field.replace(".", SEPARATOR).upper()


def unknown_name(section: str, field: str) -> str:
    """Empty if "section.field" exists, else what to do about it."""
    known = section_fields()
    if section not in known:
        return f"there is no section {section!r}{_nearest(section, known)}"
    if field not in known[section]:
        everywhere = [f"{s}.{f}" for s, fields in known.items() for f in fields]
        near = difflib.get_close_matches(field, known[section], 1)
        near = near or [name for name in known[section] if field and name.startswith(field)]
        if near:
            return f"there is no such field; did you mean {section}.{near[0]}?"
        elsewhere = [name for name in everywhere if name.endswith(f".{field}")]
        if elsewhere:
            return f"there is no such field; did you mean {elsewhere[0]}?"
        return (
            f"there is no such field; section {section} has: {', '.join(known[section])} "
            "(see `distkv config explain`)"
        )
    return ""


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(known)} (see `distkv config explain`)"


def load(
    role: str,
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> Config:
    """The configuration of a process; `role` is "node", "gateway" or "any" (no required fields).

    `flags`: "section.field=value", as given to `--set`. Raises ConfigError.
    """
    assert role in ROLES, role
    layers = _Layers()
    if path is not None:
        _read_file(layers, path)
    _read_environment(layers, environment or {})
    _read_flags(layers, flags)
    config = _validate(layers)
    if config is not None:
        layers.problems.extend(
            Problem(field, layers.place(field), reason)
            for field, reason in broken_relations(config, role)
        )
    if config is None or layers.problems:
        raise ConfigError(layers.problems)
    return config


def _read_file(layers: _Layers, path: Path) -> None:
    place = f"file {path}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}. Give a TOML or JSON file with --config"
        raise ConfigError([Problem("configuration", place, reason)]) from None
    try:
        content = json.loads(raw) if path.suffix == ".json" else tomllib.loads(raw.decode())
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        reason = f"is not valid {kind}: {error}. Mend that line (.json is read as JSON, else TOML)"
        raise ConfigError([Problem("configuration", place, reason)]) from None
    if not isinstance(content, dict):
        raise ConfigError([Problem("configuration", place, "must be an object of sections")])
    for section, fields in content.items():
        if not isinstance(fields, dict):
            known = section_fields()
            fault = (
                f"is a section: write [{section}] and its fields below"
                if section in known
                else unknown_name(section, "")
            )
            layers.problems.append(Problem(section, place, fault))
            continue
        if section not in section_fields():
            layers.problems.append(Problem(section, place, unknown_name(section, "")))
            continue
        for field, value in fields.items():
            layers.say(section, field, value, f"{place}, key {section}.{field}")


def _read_environment(layers: _Layers, environment: Mapping[str, str]) -> None:
    meant = {
        (right := variable(f"{section}.{field}")).replace(SEPARATOR, "_"): right
        for section, fields in section_fields().items()
        for field in fields
    }
    for name in sorted(environment):
        if name in meant:
            # Other names with one underscore are left alone: Kubernetes sets some for Services.
            fault = f"is not read; did you mean {meant[name]}, with two underscores?"
            layers.problems.append(Problem(name, f"environment variable {name}", fault))
        if not name.startswith(PREFIX) or SEPARATOR not in name:
            continue
        section, _, field = name[len(PREFIX) :].lower().partition(SEPARATOR)
        layers.say(section, field, environment[name], f"environment variable {name}")


def _read_flags(layers: _Layers, flags: Sequence[str]) -> None:
    for flag in flags:
        name, equals, value = flag.partition("=")
        section, dot, field = name.strip().partition(".")
        if not equals or not dot:
            fault = "is not of the form section.field=value, such as limits.request_seconds=2s"
            layers.problems.append(Problem(flag, "flag --set", fault))
            continue
        layers.say(section, field, value, f"flag --set {name.strip()}")


def _validate(layers: _Layers) -> Config | None:
    try:
        return Config.model_validate(layers.values)
    except ValidationError as error:
        layers.problems.extend(problems_of(error, layers.place))
        return None


def problems_of(error: ValidationError, place_of: Any) -> Iterator[Problem]:
    """Pydantic's findings in our words; `place_of` maps "section.field" to its place."""
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"][:2])
        item = "".join(f" item {part + 1}" for part in fault["loc"][2:] if isinstance(part, int))
        message = fault["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        yield Problem(field, place_of(field), f"{fault['input']!r}{item} is wrong: {message}")
