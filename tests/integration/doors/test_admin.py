"""The administration listener."""

from __future__ import annotations

from typing import Any

from integration.doors.support import FakeStore, http_door, run, session_of

from distkv.api.http.admin import AdminCall, AdminRouter
from distkv.api.http.message import HttpError
from distkv.api.metrics import DoorMetrics
from distkv.errors import NotFormed
from distkv.kernel import Future


def test_routes_behind_a_token() -> None:
    async def body() -> None:
        router = AdminRouter("secret", DoorMetrics("admin"))
        later: Future[object] = Future()

        def found(call: AdminCall) -> object:
            if call.body["owner"] != "me":
                raise HttpError(403, "not_owner", "another owner has this cluster")
            return {"got": call.body}

        def refuse(_: AdminCall) -> object:
            raise NotFormed("wait")

        router.add("POST", "/v1/admin/found", found)
        router.add("GET", "/v1/admin/later", lambda _: later)
        router.add("GET", "/v1/admin/query", lambda call: call.query, ("node",))
        router.add("POST", "/v1/admin/refuse", refuse)
        router.add("POST", "/v1/admin/bug", lambda call: 1 // 0)
        async with (
            http_door(FakeStore(), router=router) as door,
            session_of(f"http://127.0.0.1:{door.port}") as session,
        ):

            async def call(method: str, path: str, token: str | None, **options: Any) -> Any:
                headers = {} if token is None else {"X-DistKV-Token": token}
                async with session.request(method, path, headers=headers, **options) as response:
                    return response.status, await response.json()

            for token in (None, "", "wrong", "secret2"):
                for path in ("/v1/admin/found", "/nothing"):
                    assert (await call("POST", path, token, json={}))[0] == 401
            document = {"owner": "me", "n": [1, 2]}
            assert await call("POST", "/v1/admin/found", "secret", json=document) == (
                200,
                {"got": document},
            )
            status, answer = await call("POST", "/v1/admin/found", "secret", json={"owner": "you"})
            assert (status, answer["code"]) == (403, "not_owner")
            status, answer = await call("POST", "/v1/admin/found", "secret", data=b"{")
            assert (status, answer["code"]) == (400, "bad_request")
            assert (await call("POST", "/v1/admin/found", "secret", data=b"[" * 100_000))[0] == 400
            assert (await call("POST", "/v1/admin/found", "secret", data=b"x" * 2**21))[0] == 413
            assert (await call("GET", "/v1/admin/found", "secret"))[0] == 405
            assert (await call("GET", "/nothing", "secret"))[0] == 404
            assert (await call("POST", "/v1/admin/refuse", "secret"))[0] == 503
            assert (await call("POST", "/v1/admin/bug", "secret"))[0] == 500
            assert await call("GET", "/v1/admin/query?node=3", "secret") == (200, {"node": "3"})
            assert (await call("GET", "/v1/admin/query?other=3", "secret"))[0] == 400
            later.set_result(None)
            assert await call("GET", "/v1/admin/later", "secret") == (200, {})

    run(body)


def test_without_a_token_everything_is_refused() -> None:
    async def body() -> None:
        router = AdminRouter(None, DoorMetrics("admin"))
        router.add("GET", "/v1/admin/status", lambda _: {})
        async with (
            http_door(FakeStore(), router=router) as door,
            session_of() as session,
        ):
            url = f"http://127.0.0.1:{door.port}/v1/admin/status"
            async with session.get(url, headers={"X-DistKV-Token": ""}) as response:
                assert response.status == 401

    run(body)
