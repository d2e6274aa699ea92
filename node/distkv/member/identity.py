"""Who this data directory is: written once when it is made, its boot counted at each start.

A directory is bound to a cluster and an ordinal; starting it as somebody else is refused,
because a node with another's promises, or with none, could break a chosen slot.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from distkv.core.configuration import Configuration
from distkv.ids import Member
from distkv.member.messages import Founding
from distkv.storage.base import Engine, Put, Table
from distkv.transport.base import UNKNOWN_GENERATION

FORMAT = 1
_IDENTITY = b"identity"
_FOUNDING = b"founding"
WENT_BACK = b"went_back"
"""Row of META: why no process may start on this directory any more."""


class WrongDirectory(Exception):
    """The directory belongs to another node, cluster or format; the message says which."""


class VolumeWentBack(Exception):
    """The directory holds less than it once told its peers; the message says what to do."""


class DirectoryIdentity(NamedTuple):
    """`boot` is already durable when this is returned by `open_identity`.

    `generation`: 0 from the founding on, one more after each forced recovery. Nodes of two
    generations do not talk; an empty directory learns its own with the founders' list.
    """

    cluster: bytes
    generation: int
    ordinal: int
    incarnation: int
    boot: int

    @property
    def member(self) -> Member:
        """The seat and the incarnation."""
        return Member(self.ordinal, self.incarnation)


def open_identity(
    engine: Engine, cluster: bytes, ordinal: int, fresh_incarnation: int
) -> DirectoryIdentity:
    """Read or make the identity, count this boot, and flush.

    `fresh_incarnation`: 63 random bits, used only if the directory is empty.
    Raises WrongDirectory, VolumeWentBack.
    """
    told = engine.get(Table.META, WENT_BACK)
    if told is not None:
        # Each start counts flushes: after some more of them a peer that remembers less than
        # whoever told it so would take this directory for a sound one.
        raise VolumeWentBack(told.decode())
    known = read_identity(engine)
    if known is None:
        unknown = UNKNOWN_GENERATION
        identity = DirectoryIdentity(cluster, unknown, ordinal, fresh_incarnation, 1)
    else:
        identity = _next_boot(known, cluster, ordinal)
    engine.write([identity_row(identity)])
    engine.flush()
    return identity


def read_identity(engine: Engine) -> DirectoryIdentity | None:
    """Who the directory is; None: it is empty. Raises WrongDirectory for another format."""
    raw = engine.get(Table.META, _IDENTITY)
    if raw is None:
        return None
    version, *fields = msgpack.unpackb(raw)
    if version != FORMAT:
        raise WrongDirectory(
            f"the data directory has identity format {version}, this version reads {FORMAT}"
        )
    return DirectoryIdentity(*fields)


def _next_boot(known: DirectoryIdentity, cluster: bytes, ordinal: int) -> DirectoryIdentity:
    if known.cluster != cluster:
        raise WrongDirectory(
            f"the data directory belongs to cluster {known.cluster.hex()}, the configuration "
            f"says {cluster.hex()}: point storage.directory at this cluster's own directory"
        )
    if known.ordinal != ordinal:
        raise WrongDirectory(
            f"the data directory belongs to ordinal {known.ordinal}, the configuration says "
            f"{ordinal}: two nodes would answer with one node's promises"
        )
    return known._replace(boot=known.boot + 1)


def identity_row(identity: DirectoryIdentity) -> Put:
    """The row of an identity."""
    return Put(Table.META, _IDENTITY, msgpack.packb((FORMAT, *identity)))


def own_row(key: bytes, identity: DirectoryIdentity, founding: Founding) -> bytes | None:
    """What a row of this module holds in a running node; None: it is none of them."""
    if key == _IDENTITY:
        packed: bytes = msgpack.packb((FORMAT, *identity))
        return packed
    return founding_row(founding).value if key == _FOUNDING else None


def load_founding(engine: Engine) -> Founding | None:
    """The persisted list of founders, if this directory has one."""
    raw = engine.get(Table.META, _FOUNDING)
    if raw is None:
        return None
    version, cluster, owner, k, m, members, inline_max, *rest = msgpack.unpackb(raw)
    if version != FORMAT:
        raise WrongDirectory(f"the founding list has format {version}, this version reads {FORMAT}")
    return Founding(cluster, owner, k, m, tuple((o, i) for o, i in members), inline_max, *rest)


def founding_row(founding: Founding) -> Put:
    """The row to make durable before any vote."""
    return Put(Table.META, _FOUNDING, msgpack.packb((FORMAT, *founding)))


def first_configuration(founding: Founding) -> Configuration:
    """The configuration of slot 0."""
    members = tuple(Member(o, i) for o, i in founding.members)
    return Configuration(1, founding.data_shards, founding.parity_shards, members)
