"""Every refusal a user can meet: one class, one code, one meaning.

`code` is stable and documented; doors map it to a RESP error word and an HTTP status.
`applied` says whether the command may have taken effect: "no", "maybe".
"""

from __future__ import annotations

from collections.abc import Sequence


class DistKVError(Exception):
    """Base of all errors that reach a client."""

    code = "error"
    resp = "ERR"
    http = 500
    applied = "no"
    retry = False
    """Whether the same request may succeed later without the caller changing it."""


class BadRequest(DistKVError):
    """The request itself is wrong; the message names the field and the remedy."""

    code, resp, http = "bad_request", "ERR", 400


class ConditionFailed(DistKVError):
    """The record is not as the condition demanded; nothing was changed."""

    code, resp, http = "condition_failed", "CONDITIONFAILED", 412


class TooLarge(DistKVError):
    """A configured limit was passed; the message names the limit."""

    code, resp, http = "too_large", "TOOLARGE", 413


class Busy(DistKVError):
    """A bounded queue or memory budget is full; the message names the limit."""

    code, resp, http, retry = "busy", "BUSY", 429, True


class NotFormed(DistKVError):
    """The cluster was not founded yet, or this node waits to be admitted."""

    code, resp, http, retry = "not_formed", "NOTFORMED", 503, True


class NoQuorum(DistKVError):
    """Too few nodes answer to serve this safely; nothing was changed."""

    code, resp, http, retry = "no_quorum", "NOQUORUM", 503, True


class DeadlineExceeded(DistKVError):
    """The deadline passed before anything that could take effect was submitted."""

    code, resp, http, retry = "deadline", "TIMEOUT", 504, True


class OutcomeUnknown(DistKVError):
    """The deadline passed after the command was submitted: it may or may not take effect."""

    code, resp, http, applied = "outcome_unknown", "OUTCOMEUNKNOWN", 504, "maybe"


class UnknownSession(OutcomeUnknown):
    """The command was refused because its session is not (or no longer) open.

    Nothing was applied by this try; whether an earlier try was is not known.
    """

    code = "unknown_session"


class DataLost(DistKVError):
    """More shards of this value are gone than its code bears; the key stays listed as lost."""

    code, resp, http = "data_lost", "DATALOST", 500


class DiskFull(DistKVError):
    """This node's disk is full: it only reads and deletes until space is back."""

    code, resp, http, retry = "disk_full", "DISKFULL", 507, True


def full_text(ordinals: Sequence[int]) -> str:
    """Which disks are full, for messages; at least one."""
    if len(ordinals) == 1:
        return f"the disk of node {ordinals[0]} is full"
    return f"the disks of nodes {', '.join(map(str, ordinals))} are full"


class Corrupt(DistKVError):
    """What was read failed its checksum and could not be rebuilt."""

    code, resp, http = "corrupt", "CORRUPT", 500


class ShuttingDown(DistKVError):
    """This node is stopping; ask another."""

    code, resp, http, retry = "shutting_down", "SHUTDOWN", 503, True
