"""Settings of the operator: environment variables DISTKV_OPERATOR_..., then flags.

They are about the operator itself; everything about a cluster is in its resource.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

PREFIX = "DISTKV_OPERATOR_"
NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class SettingsError(Exception):
    """A setting is wrong; the message names it and the remedy."""


def _names(raw: object) -> object:
    if isinstance(raw, str):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    return raw


class Settings(BaseModel):
    """Each field is also an environment variable, in capitals after DISTKV_OPERATOR_."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespaces: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        default=(), description="Namespaces that are looked after, with commas; empty: all."
    )
    namespace: str = Field(
        default="", description="Namespace of the operator itself; empty: that of its pod."
    )
    image: str = Field(
        default="distkv:dev", min_length=1, description="Image of clusters that name none."
    )
    dev: bool = Field(
        default=False,
        description="Run outside of the cluster: nodes are reached through the API server.",
    )
    lease: str = Field(default="distkv-operator", min_length=1, description="Name of the Lease.")
    identity: str = Field(default="", description="Name in the Lease; empty: that of the pod.")
    listen: str = Field(default="0.0.0.0", description="Address of metrics and probes.")
    port: int = Field(default=8082, ge=0, le=65535, description="Port of metrics and probes.")
    poll: float = Field(default=2.0, ge=0.5, le=60, description="Seconds between asking nodes.")
    at_once: int = Field(default=8, ge=1, le=256, description="Clusters reconciled at once.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is written."
    )
    log_format: Literal["text", "json"] = Field(default="json", description="Form of log lines.")

    @property
    def lease_namespace(self) -> str:
        """Where the Lease is: with the clusters, so that operators of other namespaces do not
        compete, and the watch of it can serve as a heartbeat."""
        return self.namespaces[0] if self.namespaces else self.namespace


def load(flags: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Settings:
    """Flags that are None count as not given. Raises SettingsError."""
    environment = os.environ if environment is None else environment
    values: dict[str, object] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX)
    }
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        found = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None
    update: dict[str, object] = {}
    if not found.namespace:
        update["namespace"] = _own_namespace()
    if not found.identity:
        # A pod's name is enough: a container that is started again there is the only one of that
        # name, and need not wait for its own lease to run out.
        chance = "" if os.path.exists(NAMESPACE_FILE) else f"_{secrets.token_hex(4)}"
        update["identity"] = socket.gethostname() + chance
    return found.model_copy(update=update)


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            known = ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
            message = f"there is no such setting; there are: {known}"
        lines.append(f"{PREFIX}{field.upper()}: {message}")
    return lines


def _own_namespace() -> str:
    try:
        with open(NAMESPACE_FILE, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "default"
