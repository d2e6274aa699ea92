"""A small Kubernetes client: requests, and mirrors of collections kept fresh by list and watch."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]
RETRY_AFTER = 0.3


class ApiError(Exception):
    """The API server said no: the HTTP status and its reason."""

    def __init__(self, status: int, method: str, path: str, body: Object) -> None:
        super().__init__(f"{method} {path}: {status} {body.get('message', '')}")
        self.status = status


@dataclass(frozen=True)
class Credentials:
    """Where the API server is and who we are to it."""

    server: str
    pki: Path
    identity: str

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        files = (self.pki / f"{self.identity}.crt", self.pki / f"{self.identity}.key")
        context.load_cert_chain(*files)
        return context


class Api:
    """Requests over one connection for each thread."""

    def __init__(self, credentials: Credentials) -> None:
        address = urllib.parse.urlsplit(credentials.server)
        self._host, self._port = address.hostname or "", address.port or 443
        self._context = credentials.context()
        self._own = threading.local()

    def connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._host, self._port, context=self._context, timeout=timeout
        )

    def request(
        self, method: str, path: str, body: Object | None = None, kind: str = "json"
    ) -> Object:
        """One request with JSON both ways; a refusal is an ApiError."""
        status, content = self.send(method, path, body, kind)
        result: Object = json.loads(content)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(status, method, path, result)
        return result

    def send(
        self, method: str, path: str, body: Object | None = None, kind: str = "json"
    ) -> tuple[int, bytes]:
        """The status and the raw answer. An idle connection that was closed is replaced once."""
        content = json.dumps(body) if body is not None else None
        headers = {"Content-Type": f"application/{kind}", "Accept": "application/json"}
        for last in (False, True):
            connection = getattr(self._own, "connection", None)
            if connection is None:
                connection = self._own.connection = self.connect(timeout=20)
            try:
                connection.request(method, path, content, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self._own.connection = None
                if last:
                    raise
        raise AssertionError("the second attempt returns or raises")

    def merge(self, path: str, body: Object) -> Object:
        return self.request("PATCH", path, body, kind="merge-patch+json")


class Mirror:
    """A copy of a collection. `changed` is called after each change, from the mirror's thread."""

    def __init__(self, api: Api, path: str, changed: Callable[[], None]) -> None:
        self._api, self._path, self._changed = api, path, changed
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self.synced = threading.Event()
        threading.Thread(target=self._run, name=f"mirror {path}", daemon=True).start()

    def all(self) -> list[Object]:
        with self._lock:
            return list(self._objects.values())

    def by_uid(self, uid: str) -> Object | None:
        with self._lock:
            return self._objects.get(uid)

    def _run(self) -> None:
        while True:
            try:
                self._follow(self._list())
            except (OSError, ValueError, http.client.HTTPException, ApiError) as error:
                print(f"watch of {self._path} interrupted: {error!r}", flush=True)
                time.sleep(RETRY_AFTER)

    def _list(self) -> str:
        listing = self._api.request("GET", self._path)
        with self._lock:
            self._objects = {item["metadata"]["uid"]: item for item in listing["items"]}
        self.synced.set()
        self._changed()
        return str(listing["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        query = f"watch=1&timeoutSeconds=240&resourceVersion={version}"
        connection = self._api.connect(timeout=300)
        try:
            connection.request("GET", f"{self._path}?{query}")
            answer = connection.getresponse()
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":  # too old a version, mostly: list again
                    return
                uid = event["object"]["metadata"]["uid"]
                with self._lock:
                    if event["type"] == "DELETED":
                        self._objects.pop(uid, None)
                    else:
                        self._objects[uid] = event["object"]
                self._changed()
        finally:
            connection.close()
