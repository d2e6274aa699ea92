"""For every rule of the custom resource definition: a resource it takes, and one it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

Schema = dict[str, Any]
Spec = dict[str, Any]

_FACTORS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_FACTORS |= {"": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}


class Case(NamedTuple):
    """`before`: the object that is changed to `spec`; None: `spec` is created."""

    rule: str
    """The rule's message, or its beginning."""
    good: Spec
    bad: Spec
    before: Spec | None = None


def at(path: tuple[str, ...], value: object) -> Spec:
    """A specification with this value there."""
    for name in reversed(path):
        value = {name: value}
    assert isinstance(value, dict)
    return value


FIXED_CLASS = {"storage": {"className": "fast"}}
ROCKS = {"storage": {"engine": "rocksdb"}}

CASES = (
    Case("dataShards must be at least 1", {"dataShards": 1}, {"dataShards": 0}),
    Case("parityShards must be at least 0", {"parityShards": 0}, {"parityShards": -1}),
    Case(
        "dataShards + parityShards must be at most 12",
        {"dataShards": 7, "parityShards": 5},
        {"dataShards": 8, "parityShards": 5},
    ),
    Case(
        "className cannot be changed", FIXED_CLASS, {"storage": {"className": "slow"}}, FIXED_CLASS
    ),
    Case("className cannot be changed", FIXED_CLASS, {}, FIXED_CLASS),
    Case("className cannot be changed", {}, FIXED_CLASS, {}),
    Case("engine cannot be changed", ROCKS, {"storage": {"engine": "files"}}, ROCKS),
    Case("engine cannot be changed", ROCKS, {"storage": {"size": "10Gi"}}, ROCKS),
    Case("engine cannot be changed", {}, ROCKS, {}),
    Case(
        "size may only grow",
        {"storage": {"size": "1025Mi"}},
        {"storage": {"size": "1023Mi"}},
        {"storage": {"size": "1Gi"}},
    ),
    Case(
        "size may only grow",
        {"storage": {"size": "1Gi"}},
        {"storage": {"size": 1073741823}},
        {"storage": {"size": 1073741824}},
    ),
    Case(
        "size must be at least 128Mi",
        {"storage": {"size": "128Mi"}},
        {"storage": {"size": "127Mi"}},
    ),
    Case("engine memory keeps nothing", ROCKS, {"storage": {"engine": "memory"}}),
    *(
        Case(
            f"requests.{name} must not be above limits.{name}",
            outer({"requests": {name: least}, "limits": {name: least}}),
            outer({"requests": {name: more}, "limits": {name: least}}),
        )
        for outer in (lambda r: {"resources": r}, lambda r: {"gateway": {"resources": r}})
        for name, least, more in (("cpu", "1", "1001m"), ("memory", "1Gi", "1025Mi"))
    ),
    Case(
        "limits.memory must be at least 256Mi",
        {"resources": {"limits": {"memory": "256Mi"}}},
        {"resources": {"limits": {"memory": "255Mi"}}},
    ),
    Case(
        "limits.memory must be at least 64Mi",
        {"gateway": {"resources": {"limits": {"memory": "64Mi"}}}},
        {"gateway": {"resources": {"limits": {"memory": "63Mi"}}}},
    ),
    Case(
        "labels of distkv.io and app.kubernetes.io",
        {"podTemplate": {"labels": {"example.org/team": "a"}}},
        {"podTemplate": {"labels": {"app.kubernetes.io/name": "a"}}},
    ),
    Case(
        "annotations of distkv.io and app.kubernetes.io",
        {"podTemplate": {"annotations": {"example.org/team": "a"}}},
        {"podTemplate": {"annotations": {"distkv.io/fingerprint": "a"}}},
    ),
)

KEYS = "keys must look like example.org/name"


def toleration(**fields: object) -> Spec:
    return {"podTemplate": {"tolerations": [fields]}}


TEXTS = (
    *(
        Case(KEYS, at(path, {"example.org/a.b_c": "x"}), at(path, {"/a": "x"}))
        for path in (
            ("podTemplate", "labels"),
            ("podTemplate", "annotations"),
            ("podTemplate", "nodeSelector"),
            ("monitoring", "labels"),
            ("service", "annotations"),
            ("gateway", "serviceAnnotations"),
        )
    ),
    Case(
        "operator Exists takes no value",
        toleration(operator="Exists", key="a"),
        toleration(operator="Exists", key="a", value="b"),
    ),
    Case(
        "operator Equal needs a key",
        toleration(key="a", value="b"),
        toleration(operator="Equal", value="b"),
    ),
    Case(
        "tolerationSeconds goes with effect NoExecute only",
        toleration(key="a", effect="NoExecute", tolerationSeconds=5),
        toleration(key="a", tolerationSeconds=5),
    ),
)

NAMES = (
    ("the name must have at most 40 characters", "a" * 40, "a" * 41),
    ("the name must begin with a letter", "b-1", "1-b"),
    ("the name must not end in", "a-gateways", "a-gateway"),
    ("the name must not end in", "peers", "a-peers"),
)


def bounds(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[Case]:
    """Of every size and duration that has bounds."""
    for rule in schema.get("x-kubernetes-validations", ()):
        least = re.fullmatch(r"must be (?:from|at least) (\S+)(?: to \S+)?", rule["message"])
        most = re.fullmatch(r"must be (?:from \S+ to|at most) (\S+)", rule["message"])
        if least:
            yield Case(rule["message"], at(path, least[1]), at(path, _next_to(least[1], -1)))
        if most:
            yield Case(rule["message"], at(path, most[1]), at(path, _next_to(most[1], 1)))
    for name, part in schema.get("properties", {}).items():
        yield from bounds(part, (*path, name))


def _next_to(text: str, step: int) -> str:
    """A little more or less, in a smaller unit."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    exact = float(number) * _FACTORS[unit]
    if unit and unit in ("us", "ms", "s", "m", "h"):
        return f"{round(exact * 1e6) + step}us"
    return str(round(exact) + step)


def messages(schema: Schema) -> Iterator[str]:
    """Of all rules."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for part in schema.get("properties", {}).values():
        yield from messages(part)
    if "items" in schema:
        yield from messages(schema["items"])
