"""What a write does to the records: all of its mutations, or none.

Refusals (protocol section 2) and conditions are judged against the state before the write;
effects follow in order, each seeing those before it, on a draft that is only then applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distkv.ids import Ballot, ValueId
from distkv.machine import commands as c
from distkv.machine.interface import OutcomeKind, Record
from distkv.machine.keyspace import Keyspace
from distkv.machine.membership import Membership
from distkv.machine.numbers import (
    DECIMAL_BYTES_MAX,
    INTEGER_BYTES_MAX,
    NOT_A_FLOAT,
    NOT_AN_INTEGER,
    NumberError,
    add_decimal,
    add_integer,
)
from distkv.machine.records import coded_record, fresh_inline, inline_record
from distkv.operations import ExpireMode, Must

Fields = tuple[Any, ...]
Decision = tuple[OutcomeKind, object]

_APPLIED = OutcomeKind.APPLIED
VALUE_ID_AT = {c.PUT_CODED: 7, c.RESTRIPE: 3}
"""Where the dispersed value starts in a mutation."""


class _Stop(Exception):
    """The write ends here without any effect."""

    def __init__(self, kind: OutcomeKind, detail: object) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Draft:
    """Effects of one write before they are applied."""

    def __init__(self, keyspace: Keyspace, slot: int, inline_max: int) -> None:
        self._keyspace = keyspace
        self.slot = slot
        self.inline_max = inline_max
        self.log_time_ms = keyspace.log_time_ms
        self.revision = keyspace.revision
        self.flushed = False
        self.records: dict[bytes, Record | None] = {}

    def get(self, key: bytes) -> Record | None:
        """The visible record after the effects so far."""
        if key in self.records:
            return self.records[key]
        return None if self.flushed else self._keyspace.get(key)

    def set(self, key: bytes, record: Record | None) -> None:
        """Change a key; an expiry that is over removes it."""
        if record is not None and record.expires_ms is not None:
            record = None if record.expires_ms <= self.log_time_ms else record
        self.records[key] = record

    def next_version(self) -> int:
        """The revision of the next change."""
        self.revision += 1
        return self.revision

    def count(self) -> int:
        """Visible records after the effects so far."""
        total = 0 if self.flushed else self._keyspace.count()
        for key, record in self.records.items():
            before = None if self.flushed else self._keyspace.get(key)
            total += (record is not None) - (before is not None)
        return total

    def flush(self) -> None:
        """Remove every key."""
        self.flushed = True
        self.records = {}

    def apply(self) -> None:
        """Make the effects real."""
        keyspace = self._keyspace
        keyspace.revision = self.revision
        if self.flushed:
            keyspace.flush()
        for key, record in self.records.items():
            keyspace.replace(key, keyspace.records.get(key), record)


def execute(
    mutations: tuple[Fields, ...],
    slot: int,
    barrier: Ballot,
    membership: Membership,
    keyspace: Keyspace,
) -> Decision:
    """Apply a parsed write, or change nothing. The kind and detail of its outcome."""
    if len(mutations) == 1 and mutations[0][0] == c.PUT_INLINE:
        return _put_one_inline(mutations[0], slot, membership.options.inline_max, keyspace)
    reason = _refusal(mutations, barrier, membership, keyspace)
    if reason:
        return OutcomeKind.REFUSED, reason
    for index, mutation in enumerate(mutations):
        at = _CONDITION_AT.get(mutation[0])
        if at is not None and mutation[at]:
            record = keyspace.get(mutation[1])
            if not _meets(record, mutation[at], mutation[at + 1]):
                return OutcomeKind.CONDITION, index
    draft = Draft(keyspace, slot, membership.options.inline_max)
    results: list[object] = []
    for index, mutation in enumerate(mutations):
        try:
            results.append(_EFFECTS[mutation[0]](draft, mutation))
        except _Stop as stop:
            detail = index if stop.detail is None else stop.detail
            return stop.kind, detail
        except NumberError as error:
            return OutcomeKind.FAILED, str(error)
    draft.apply()
    return _APPLIED, results


def _put_one_inline(mutation: Fields, slot: int, inline_max: int, keyspace: Keyspace) -> Decision:
    """The commonest write, without a draft."""
    _, key, must, version, how, when, previous, checksum, value = mutation
    row = keyspace.records.get(key)
    if row is None or row.expires_ms is None:
        old = row
    else:
        old = keyspace.visible(row)
    if must and not _meets(old, must, version):
        return OutcomeKind.CONDITION, 0
    if len(value) > inline_max:
        return OutcomeKind.FAILED, _too_long(len(value), inline_max)
    keyspace.revision = revision = keyspace.revision + 1
    expires = _expires(how, when, old, keyspace.log_time_ms) if how else None
    new: Record | None = inline_record(revision, expires, slot, checksum, value)
    if expires is not None and expires <= keyspace.log_time_ms:
        new, revision = None, 0
    keyspace.replace(key, row, new)
    return _APPLIED, [(revision, old is not None, old if previous else None)]


# -- refusals and conditions -------------------------------------------------------------


def _refusal(
    mutations: tuple[Fields, ...], barrier: Ballot, membership: Membership, keyspace: Keyspace
) -> str:
    seen: list[bytes] = []
    for mutation in mutations:
        at = VALUE_ID_AT.get(mutation[0])
        if at is None:
            continue
        raw, k, _, _, _, _, stamp, epoch, holders = mutation[at:]
        if stamp < barrier:
            return "barrier"
        reason = membership.refusal(ValueId.unpack(raw), k, epoch, holders)
        if reason:
            return reason
        # A value id names one value for ever; a second use would be a lost first value.
        if raw in seen or keyspace.names.get(raw) is not None:
            return "settled"
        seen.append(raw)
    return ""


def _meets(record: Record | None, must: int, version: int) -> bool:
    if must == Must.ANYTHING:
        return True
    if must == Must.BE_ABSENT:
        return record is None
    if must == Must.BE_PRESENT:
        return record is not None
    has = record is not None and record.version == version
    return has if must == Must.HAVE_VERSION else not has


def _expires(how: int, when: int, old: Record | None, log_time_ms: int) -> int | None:
    if how == c.EXPIRY_AT:
        return max(0, when)
    if how == c.EXPIRY_AFTER:
        return max(0, log_time_ms + when)
    if how == c.EXPIRY_KEEP and old is not None:
        return old.expires_ms
    return None


def _too_long(length: int, inline_max: int) -> str:
    return f"a value of {length} bytes is above inline_max ({inline_max}) and was not dispersed"


# -- effects -----------------------------------------------------------------------------


def _put_inline(draft: Draft, mutation: Fields) -> object:
    _, key, _, _, how, when, previous, checksum, value = mutation
    if len(value) > draft.inline_max:
        raise _Stop(OutcomeKind.FAILED, _too_long(len(value), draft.inline_max))
    old = draft.get(key)
    expires = _expires(how, when, old, draft.log_time_ms)
    new = inline_record(draft.next_version(), expires, draft.slot, checksum, value)
    return _written(draft, key, old, new, previous)


def _put_coded(draft: Draft, mutation: Fields) -> object:
    _, key, _, _, how, when, previous = mutation[:7]
    old = draft.get(key)
    expires = _expires(how, when, old, draft.log_time_ms)
    new = coded_record(draft.next_version(), expires, draft.slot, mutation[7:])
    return _written(draft, key, old, new, previous)


def _written(
    draft: Draft, key: bytes, old: Record | None, new: Record | None, previous: bool
) -> object:
    draft.set(key, new)
    kept = draft.records[key]
    return (
        0 if kept is None else kept.version,
        old is not None,
        old if previous else None,
    )


def _delete(draft: Draft, mutation: Fields) -> object:
    _, key, _, _, previous = mutation
    old = draft.get(key)
    if old is not None:
        draft.next_version()
    return _written(draft, key, old, None, previous)


def _expire(draft: Draft, mutation: Fields) -> object:
    _, key, mode, how, when = mutation
    old = draft.get(key)
    if old is None or how == c.EXPIRY_KEEP:
        return False
    now, then = old.expires_ms, _expires(how, when, old, draft.log_time_ms)
    if (then is None and now is None) or not _mode_allows(mode, now, then):
        return False
    draft.set(key, old._replace(version=draft.next_version(), expires_ms=then))
    return True


def _mode_allows(mode: int, now: int | None, then: int | None) -> bool:
    """Redis: a key without a time counts as one that ends after every time."""
    if mode == ExpireMode.ONLY_WITHOUT:
        return now is None
    if mode == ExpireMode.ONLY_WITH:
        return now is not None
    if mode == ExpireMode.ONLY_LATER:
        return now is not None and (then is None or then > now)
    if mode == ExpireMode.ONLY_SOONER:
        return then is not None and (now is None or then < now)
    return True


def _old_number(old: Record | None, bytes_max: int, too_long: str) -> bytes:
    if old is None:
        return b"0"
    if old.length > bytes_max:
        raise _Stop(OutcomeKind.FAILED, too_long)
    if old.value is None:
        raise _Stop(OutcomeKind.NEEDS_VALUE, None)
    return old.value


def _set_value(draft: Draft, key: bytes, old: Record | None, value: bytes) -> None:
    expires = None if old is None else old.expires_ms
    draft.set(key, fresh_inline(draft.next_version(), expires, draft.slot, value))


def _increment(draft: Draft, mutation: Fields) -> object:
    _, key, delta = mutation
    old = draft.get(key)
    number = add_integer(_old_number(old, INTEGER_BYTES_MAX, NOT_AN_INTEGER), delta)
    _set_value(draft, key, old, b"%d" % number)
    return number


def _increment_float(draft: Draft, mutation: Fields) -> object:
    _, key, delta = mutation
    old = draft.get(key)
    text = add_decimal(_old_number(old, DECIMAL_BYTES_MAX, NOT_A_FLOAT), delta)
    if len(text) > draft.inline_max:
        raise _Stop(OutcomeKind.FAILED, f"the number has more than {draft.inline_max} digits")
    _set_value(draft, key, old, text)
    return text


def _append(draft: Draft, mutation: Fields) -> object:
    _, key, piece = mutation
    old = draft.get(key)
    if old is not None and old.value is None:
        raise _Stop(OutcomeKind.NEEDS_VALUE, None)
    value = piece if old is None or old.value is None else old.value + piece
    if len(value) > draft.inline_max:
        raise _Stop(OutcomeKind.NEEDS_VALUE, None)
    _set_value(draft, key, old, value)
    return len(value)


def _flush(draft: Draft, mutation: Fields) -> object:
    removed = draft.count()
    draft.revision += removed
    draft.flush()
    return removed


def _restripe(draft: Draft, mutation: Fields) -> object:
    _, key, old_id = mutation[:3]
    old = draft.get(key)
    if old is None or old.value_id is None or old.value_id.pack() != old_id:
        raise _Stop(OutcomeKind.CONDITION, None)
    new = coded_record(old.version, old.expires_ms, draft.slot, mutation[3:])
    if (new.length, new.checksum) != (old.length, old.checksum):
        raise _Stop(OutcomeKind.CONDITION, None)
    draft.set(key, new)
    return old.version


def _check(draft: Draft, mutation: Fields) -> object:
    return True


def _basis(draft: Draft, mutation: Fields) -> object:
    _, key, version, *answer = mutation
    old = draft.get(key)
    if (0 if old is None else old.version) != version:
        raise _Stop(OutcomeKind.NEEDS_VALUE, None)
    return answer[0] if answer else True


_EFFECTS: dict[int, Callable[[Draft, Fields], object]] = {
    c.PUT_INLINE: _put_inline,
    c.PUT_CODED: _put_coded,
    c.DELETE: _delete,
    c.EXPIRE: _expire,
    c.INCREMENT: _increment,
    c.INCREMENT_FLOAT: _increment_float,
    c.APPEND: _append,
    c.FLUSH: _flush,
    c.RESTRIPE: _restripe,
    c.CHECK: _check,
    c.BASIS: _basis,
}
_CONDITION_AT = {c.PUT_INLINE: 2, c.PUT_CODED: 2, c.DELETE: 2, c.CHECK: 2}
"""Where the condition starts in a mutation."""
