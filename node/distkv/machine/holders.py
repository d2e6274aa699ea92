"""Commands without holders of which the leader knows that their disks are gone.

A put names the members that hold its shards. Where another incarnation already sits in the
place of one of them, that disk is lost, though the log does not say so yet; a leader takes it
off the list, and what is left decides at apply, as ever, whether the holders suffice (protocol
section 5). So it is the log that refuses such a put, and its coordinator disperses again.
"""

from __future__ import annotations

from collections.abc import Collection

import msgpack

from distkv.ids import Member
from distkv.machine.commands import PUT_CODED, RESTRIPE, WRITE, WireMutation
from distkv.machine.parsing import parse_command

_NAMING = (PUT_CODED, RESTRIPE)
_pack = msgpack.Packer().pack


def without_holders(packed: bytes, gone: Collection[Member]) -> bytes:
    """A command that counts none of `gone` as a holder. Raises UnknownEntry."""
    command = parse_command(packed)
    if command[0] != WRITE:
        return packed
    *head, mutations = command
    kept = tuple(_without(mutation, gone) for mutation in mutations)
    if kept == mutations:
        return packed
    rebuilt: bytes = _pack((*head, kept))
    return rebuilt


def _without(mutation: WireMutation, gone: Collection[Member]) -> WireMutation:
    if mutation[0] not in _NAMING:
        return mutation
    *head, holders = mutation
    pairs = zip(holders[::2], holders[1::2], strict=True)
    kept = [number for pair in pairs if pair not in gone for number in pair]
    return (*head, tuple(kept))
