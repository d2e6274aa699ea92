"""The files a configuration points at: cluster keys and tokens."""

from __future__ import annotations

from pathlib import Path

from distkv.config.loading import ConfigError, Problem
from distkv.config.schema import Config

KEY_BYTES = 32


def cluster_keys(config: Config) -> tuple[bytes, ...]:
    """The keys of keys.files, 32 bytes each, the sealing one first; empty if insecure.

    Raises ConfigError.
    """
    return tuple(_key(name) for name in config.keys.files)


def _key(name: str) -> bytes:
    text = _text("keys.files", name)
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise _refused("keys.files", name, f"must hold {2 * KEY_BYTES} hexadecimal digits")
    return key


def admin_token(config: Config) -> str | None:
    """The token of the admin listener. Raises ConfigError."""
    return _token("admin.token_file", config.admin.token_file)


def gateway_token(config: Config) -> str | None:
    """The token gateways show to nodes, if there is one. Raises ConfigError."""
    return _token("gateway.token_file", config.gateway.token_file)


def _token(field: str, name: str | None) -> str | None:
    if name is None:
        return None
    text = _text(field, name)
    if not text:
        raise _refused(field, name, "is empty: put a token of your own into it")
    return text


def _text(field: str, name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii").strip()
    except OSError as error:
        raise _refused(field, name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _refused(field, name, "must hold plain text") from None


def _refused(field: str, name: str, reason: str) -> ConfigError:
    return ConfigError([Problem(field, f"file {name}", reason)])
