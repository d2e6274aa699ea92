"""Cluster keys, their rotation, and the keys of one connection derived from them (RFC 5869)."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_ID_BYTES = 4
KEY_BYTES_MIN = 16

_PUBLIC = b"distkv: this cluster runs without a key by explicit choice"


class ClusterKey(NamedTuple):
    """A shared secret and the public name (4 bytes) that says which one was used."""

    name: bytes
    secret: bytes


def cluster_key(secret: bytes) -> ClusterKey:
    """Raises ValueError for a secret of less than 16 bytes."""
    if len(secret) < KEY_BYTES_MIN:
        raise ValueError(f"a cluster key needs at least {KEY_BYTES_MIN} bytes")
    return ClusterKey(derive(secret, b"", b"distkv key name", KEY_ID_BYTES), secret)


class KeyRing:
    """The key new connections are made with, and those accepted from others.

    Rotation in three steps, each on all nodes before the next: (old, accepted new),
    (new, accepted old), (new).
    """

    __slots__ = ("_accepted", "current", "insecure")

    def __init__(
        self, current: bytes | None, accepted: bytes | None = None, *, insecure: bool = False
    ) -> None:
        """`current` None needs `insecure`: then everybody knows the key; raises ValueError."""
        if current is None and not insecure:
            raise ValueError("no cluster key: give one, or choose insecure mode explicitly")
        if current is not None and insecure:
            raise ValueError("a cluster key and insecure mode exclude each other")
        self.insecure = insecure
        self.current = cluster_key(_PUBLIC if current is None else current)
        keys = [self.current] + ([cluster_key(accepted)] if accepted is not None else [])
        self._accepted = {key.name: key for key in keys}

    def find(self, name: bytes) -> ClusterKey | None:
        """The key of that name, if it is accepted."""
        return self._accepted.get(name)


def derive(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


class ConnectionKeys(NamedTuple):
    """One AEAD for each direction; a nonce is used once under each."""

    seal: AESGCM
    open: AESGCM


def connection_keys(
    key: ClusterKey, hello: bytes, welcome: bytes, initiator: bool
) -> ConnectionKeys:
    """Keys bound to both whole greetings: identities, boots and fresh randoms of both sides."""
    transcript = hashlib.sha256(hello).digest() + hashlib.sha256(welcome).digest()
    raw = derive(key.secret, transcript, b"distkv connection keys", 64)
    forth, back = AESGCM(raw[:32]), AESGCM(raw[32:])
    return ConnectionKeys(forth, back) if initiator else ConnectionKeys(back, forth)
