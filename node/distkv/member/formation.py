"""How a node with an empty directory gets to know the founders (protocol: formation).

An empty directory forms nothing by itself: a failed mount looks the same. It waits until
the owner founds the cluster through ordinal 0, or until a peer that holds the list of
founders tells it; then it is a voter if it stands on the list, else a learner that waits
to be admitted.
"""

from __future__ import annotations

from distkv.core.configuration import check
from distkv.errors import BadRequest
from distkv.member.identity import DirectoryIdentity, first_configuration
from distkv.member.messages import Founding
from distkv.transport.base import UNKNOWN_GENERATION

INLINE_MAX_LIMIT = 64 * 1024
"""A larger value in the log would delay the small ones behind it."""


def check_founding(identity: DirectoryIdentity, founding: Founding) -> None:
    """Raise BadRequest, naming the field and the remedy, if this list cannot be carried out."""
    if identity.generation not in (UNKNOWN_GENERATION, founding.generation):
        raise BadRequest(
            f"the list is of generation {founding.generation}, this directory of "
            f"{identity.generation}"
        )
    if founding.cluster != identity.cluster:
        raise BadRequest(
            f"cluster_id {founding.cluster.hex()} is not the one this node was configured with "
            f"({identity.cluster.hex()})"
        )
    if len(founding.owner) == 0:
        raise BadRequest("owner must not be empty: later admin commands are checked against it")
    if not 0 <= founding.inline_max <= INLINE_MAX_LIMIT:
        raise BadRequest(f"inline_max must be between 0 and {INLINE_MAX_LIMIT} bytes")
    if len({incarnation for _, incarnation in founding.members}) != len(founding.members):
        raise BadRequest("members must be distinct: two have the same incarnation")
    try:
        check(first_configuration(founding))
    except ValueError as error:
        raise BadRequest(str(error)) from error


def may_found(identity: DirectoryIdentity, founding: Founding) -> None:
    """Raise BadRequest unless this node is the one to receive the owner's founding command."""
    if identity.ordinal != 0:
        raise BadRequest(f"found the cluster through ordinal 0, this is {identity.ordinal}")
    if identity.member not in first_configuration(founding).members:
        raise BadRequest(
            f"members[0] must be this node's incarnation {identity.incarnation}: ask "
            "/v1/admin/identity again, its directory was made anew since"
        )
