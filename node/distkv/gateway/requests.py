"""One request through a gateway: tried at one node after another inside its deadline.

Reads may be tried anywhere. A write carries a session and a sequence number, so it is applied
once however often it is sent; once a node may have submitted it, only an answer under that
same number decides it, and without one the outcome is unknown.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from distkv.api.link.client import LinkClient
from distkv.api.link.lost import LinkLost
from distkv.errors import (
    BadRequest,
    Busy,
    DeadlineExceeded,
    DiskFull,
    DistKVError,
    NoQuorum,
    NotFormed,
    OutcomeUnknown,
    ShuttingDown,
    TooLarge,
    UnknownSession,
)
from distkv.gateway.downloads import ResumingDownload
from distkv.gateway.uploads import GatewayUpload
from distkv.kernel import Future
from distkv.operations import Get, GetMany, Operation, Put, Value, Write

if TYPE_CHECKING:
    from distkv.gateway.sessions import Session
    from distkv.gateway.store import GatewayStore

log = logging.getLogger("distkv.gateway")

ELSEWHERE = (NoQuorum, NotFormed, Busy, DiskFull, ShuttingDown)
"""Refusals of one node that another need not share; nothing was changed by them."""
RETRY_SECONDS_MIN = 0.02


class Request:
    """`start` once; `future` is what the door waits for."""

    __slots__ = (
        "_answer",
        "_failure",
        "_maybe",
        "_node",
        "_session",
        "_tried",
        "_uploads",
        "deadline",
        "future",
        "operation",
        "store",
    )

    def __init__(self, store: GatewayStore, operation: Operation, deadline: float) -> None:
        self.store = store
        self.operation = operation
        self.deadline = deadline
        self.future: Future[object] = Future()
        self._answer: Future[object] | None = None
        self._node: LinkClient | None = None
        self._tried: list[LinkClient] = []
        self._failure: DistKVError | None = None
        self._maybe = False
        """A node may have submitted it."""
        self._session: Session | None = None
        self._uploads: list[GatewayUpload] = []
        if isinstance(operation, Write):
            for mutation in operation.mutations:
                if isinstance(mutation, Put) and isinstance(mutation.value, GatewayUpload):
                    self._uploads.append(mutation.value)

    def start(self) -> None:
        """Find a session if it needs one, then a node."""
        operation = self.operation
        if isinstance(operation, Write) and operation.session is None:
            self.store.sessions.when_open(self._with_session)
        else:
            self._try()

    def _with_session(self, failure: BaseException | None) -> None:
        if self.future.done:
            return
        if failure is not None:
            if isinstance(failure, OutcomeUnknown):
                failure = NoQuorum(f"the gateway could not open its session: {failure}")
            self._finish(failure)
            return
        session = self.store.sessions.current
        assert session is not None
        assert isinstance(self.operation, Write)
        self._session = session
        self.operation = self.operation._replace(session=session.identity, sequence=session.take())
        self._try()

    # -- one try

    def _try(self) -> None:
        for upload in self._uploads:
            if upload.failure is not None:
                self._finish(upload.failure)
                return
        node = self._choose()
        if node is None:
            self._no_node()
            return
        self._node = node
        if self._uploads and not self._values_at(node):
            return
        self._send(node)

    def retry(self) -> None:
        """A node came or serves again."""
        if self._answer is None:
            self._try()

    def _choose(self) -> LinkClient | None:
        for upload in self._uploads:
            target = upload.target
            if target is not None and target.connected and target not in self._tried:
                return target
        return self.store.nodes.pick(self._tried)

    def _no_node(self) -> None:
        self._node = None
        decided = self._failure is not None and not isinstance(self._failure, LinkLost)
        if self._tried and decided:
            assert self._failure is not None
            self._finish(self._failure)
        elif self.store.nodes.all_full:
            limit = self.store.options.in_flight_max
            self._finish(Busy(f"too many requests under way: limit gateway.in_flight ({limit})"))
        else:
            # Woken when a node comes or serves again, or ended at the deadline.
            self._tried.clear()
            self.store.waiting[self] = None

    def _values_at(self, node: LinkClient) -> bool:
        """Whether the node has the values; else `_try` is called again as they get there."""
        for upload in self._uploads:
            if not upload.ready_at(node, self._value_changed):
                if upload.failure is not None:
                    self._finish(upload.failure)
                return False
        return True

    def _value_changed(self) -> None:
        if not self.future.done and self._answer is None:
            self._try()

    def _send(self, node: LinkClient) -> None:
        operation = self.operation
        if isinstance(operation, Write):
            if self._session is not None:
                operation = self.operation = operation._replace(low=self._session.low)
            if self._uploads:
                operation = operation._replace(
                    mutations=tuple(
                        m._replace(value=m.value.taken())
                        if isinstance(m, Put) and isinstance(m.value, GatewayUpload)
                        else m
                        for m in operation.mutations
                    )
                )
        answer = node.call(operation, self.deadline)
        self._answer = answer
        answer.add_callback(self._answered)

    # -- what came of it

    def _answered(self, answer: Future[object]) -> None:
        if self.future.done or answer is not self._answer:
            _close_downloads(self.operation, answer)
            return
        self._answer = None
        failure = answer.error
        if failure is None:
            self._finish_well(answer.result())
        elif isinstance(self.operation, Write):
            self._write_failed(failure)
        else:
            self._read_failed(failure)

    def _read_failed(self, failure: BaseException) -> None:
        # Opening a session twice changes nothing, so it may be tried again like a read.
        if isinstance(failure, UnknownSession):
            self._finish(failure)  # that one ended is true at every node
        elif isinstance(failure, (*ELSEWHERE, OutcomeUnknown)):
            self._elsewhere(failure)
        else:
            self._finish(failure)

    def _write_failed(self, failure: BaseException) -> None:
        if isinstance(failure, UnknownSession) and self._session is not None:
            self.store.sessions.forget(self._session.identity)
            if not self._maybe:
                # Certainly not applied: under a new session it is a new command.
                self._session.done(self._sequence())
                self.operation = self._write()._replace(session=None, sequence=0, low=0)
                self._session = None
                self.start()
                return
            self._finish(failure)
        elif isinstance(failure, LinkLost):
            self._maybe |= failure.sent
            self._elsewhere(failure)
        elif isinstance(failure, OutcomeUnknown):
            self._maybe = True
            if self.store.now() < self.deadline - RETRY_SECONDS_MIN:
                self._elsewhere(failure)
            else:
                self._finish(failure)
        elif isinstance(failure, ELSEWHERE):
            self._elsewhere(failure)
        else:
            self._finish(failure)

    def _elsewhere(self, failure: DistKVError) -> None:
        """Try another node; the first refusal of a node that serves is the one to tell."""
        node = self._node
        assert node is not None
        self._tried.append(node)
        if self._failure is None or isinstance(self._failure, LinkLost):
            self._failure = failure
        self.store.retries += 1
        if self.store.now() >= self.deadline:
            self._finish(self._failure)
        else:
            self._try()

    def _write(self) -> Write:
        assert isinstance(self.operation, Write)
        return self.operation

    def _sequence(self) -> int:
        return self._write().sequence

    # -- the end

    def expire(self, now: float) -> None:
        """Called now and then: the deadline is over, whatever nodes do."""
        if self._answer is not None and now < self.deadline + self.store.options.grace:
            return
        if now < self.deadline:
            return
        if self._answer is not None:
            self._maybe |= isinstance(self.operation, Write)
            if self._node is not None:
                self._node.cancel(self._answer)
            self._finish(DeadlineExceeded("the node did not answer within the deadline"))
        elif self._failure is not None and not isinstance(self._failure, LinkLost):
            self._finish(self._failure)
        else:
            self._finish(NoQuorum("no node of the cluster could be reached within the deadline"))

    def _finish_well(self, result: Any) -> None:
        operation = self.operation
        if isinstance(operation, Get):
            result = self._resuming(operation.key, result)
        elif isinstance(operation, GetMany):
            pairs = zip(operation.keys, result, strict=True)
            result = [self._resuming(key, value) for key, value in pairs]
        self._end()
        self.future.set_result(result)

    def _resuming(self, key: bytes, value: Value | None) -> Value | None:
        if value is None or isinstance(value.data, bytes):
            return value
        download = ResumingDownload(self.store, key, value.meta, value.data)
        return Value(value.meta, download)

    def _finish(self, failure: BaseException) -> None:
        if self.future.done:
            return
        if not isinstance(failure, DistKVError):
            log.error("a request failed", exc_info=failure)
            failure = DistKVError("internal error, see the log of the gateway")
        # What a node may refuse before it submits anything says nothing of earlier tries.
        undecided = (*ELSEWHERE, DeadlineExceeded, UnknownSession, TooLarge, BadRequest)
        if self._maybe and isinstance(failure, undecided):
            failure = OutcomeUnknown(
                f"a node may have submitted this write before it was lost; whether it takes "
                f"effect is not known ({failure})"
            )
        elif isinstance(failure, LinkLost):
            failure = NoQuorum(f"no node of the cluster could be reached: {failure}")
        self._end()
        self.future.set_exception(failure)

    def _end(self) -> None:
        self.store.forget(self)
        if self._session is not None:
            self._session.done(self._sequence())
        for upload in self._uploads:
            upload.release()


def _close_downloads(operation: Operation, answer: Future[object]) -> None:
    """The result came too late for anybody: let its streams go."""
    if answer.error is not None:
        return
    result: Any = answer.result()
    found: list[Any] = []
    if isinstance(operation, Get):
        found = [result]
    elif isinstance(operation, GetMany):
        found = result
    elif isinstance(operation, Write):
        found = [getattr(one, "previous", None) for one in result]
    for value in found:
        if value is not None and not isinstance(value.data, bytes):
            value.data.close()
