"""Which peers are connected, as whom, and what they last said of themselves."""

from __future__ import annotations

from distkv.core.configuration import Configuration
from distkv.ids import Member
from distkv.member.messages import MENDING, Greeting
from distkv.transport.base import Identity


class Peers:
    """By ordinal. A connection proves (ordinal, incarnation, boot)."""

    def __init__(self, me: Member) -> None:
        self.me = me
        self.up: dict[int, Identity] = {}
        self.greetings: dict[int, Greeting] = {}
        self.forgetful: set[int] = set()
        """Ordinals of connections to directories that went back in time: they are not heard."""

    def is_up(self, member: Member) -> bool:
        """Whether this very incarnation is connected (oneself always is)."""
        if member == self.me:
            return True
        identity = self.up.get(member.ordinal)
        return identity is not None and identity.incarnation == member.incarnation

    def connected(self, peer: Identity) -> None:
        """A connection is there; whatever an older incarnation said is forgotten."""
        self.up[peer.ordinal] = peer
        self.greetings.pop(peer.ordinal, None)
        self.forgetful.discard(peer.ordinal)

    def disconnected(self, peer: Identity) -> bool:
        """False: that was an older connection, the present one goes on."""
        present = self.up.get(peer.ordinal)
        if present is None or (present.incarnation, present.boot) != (peer.incarnation, peer.boot):
            return False
        del self.up[peer.ordinal]
        self.greetings.pop(peer.ordinal, None)
        self.forgetful.discard(peer.ordinal)
        return True

    def replaced(self, configuration: Configuration) -> list[Member]:
        """Members in whose place another incarnation is connected: their disks are lost."""
        return [
            member
            for member in configuration.members
            if member.ordinal in self.up and not self.is_up(member)
        ]

    def members_up(self, configuration: Configuration) -> int:
        """Members that answer, oneself included if one is a member. Not those that are without a
        seat, because they lost their state: they neither vote nor give anything."""
        return sum(
            1
            for member in configuration.members
            if self.is_up(member) and (member == self.me or self._is_seated(member))
        )

    def _is_seated(self, member: Member) -> bool:
        said = self.greetings.get(member.ordinal)
        return said is None or said.start != 0

    def would_lead(self, member: Member) -> bool:
        """Whether leadership may be handed over to it: who applies nothing does not take it."""
        said = self.greetings.get(member.ordinal)
        return self.is_up(member) and (said is None or said.state != MENDING)
