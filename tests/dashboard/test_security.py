"""The gate: Host and Origin on every request, and a login where others can reach the dashboard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from graybox.dashboard.security import COOKIE, Gate, new_token


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    """What the gate guards."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-inside", b"1")]})
    await send({"type": "http.response.body", "body": b"inside"})


def knock(
    gate: Gate, headers: dict[str, str], method: str = "GET", path: str = "/", query: str = "", kind: str = "http"
) -> Any:
    """(status or websocket message type, headers) of one request."""
    scope: Scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    if kind == "websocket":
        del scope["method"]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    first = sent[0]
    return first.get("status", first["type"]), {k.decode(): v.decode() for k, v in first.get("headers", [])}


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050", "LOCALHOST"])
def test_names_of_this_machine_are_let_in(host: str) -> None:
    status, headers = knock(Gate(inside), {"Host": host})
    assert (status, headers["x-inside"]) == (200, "1")
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8050", "", "192.168.0.5:8050", "localhost.evil"]
)
def test_other_hosts_are_turned_away_on_loopback(host: str) -> None:
    assert knock(Gate(inside), {"Host": host})[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8050"])
def test_a_foreign_origin_may_not_post(origin: str) -> None:
    headers = {"Host": "127.0.0.1:8050", "Origin": origin}
    assert knock(Gate(inside), headers, "POST")[0] == 403
    assert knock(Gate(inside), headers, kind="websocket")[0] == "websocket.close"
    assert knock(Gate(inside), headers, "GET")[0] == 200


def test_the_own_origin_may_post_and_so_may_a_script_without_one() -> None:
    own = {"Host": "127.0.0.1:8050", "Origin": "http://127.0.0.1:8050"}
    assert knock(Gate(inside), own, "POST")[0] == 200
    assert knock(Gate(inside), own, kind="websocket")[0] == "websocket.accept"
    assert knock(Gate(inside), {"Host": "127.0.0.1:8050"}, "POST")[0] == 200
    assert knock(Gate(inside), {"Host": "127.0.0.1:8050"}, kind="websocket")[0] == "websocket.close"
    assert knock(Gate(inside), {**own, "Sec-Fetch-Site": "cross-site"}, "POST")[0] == 403


def test_off_loopback_a_token_is_needed_and_moves_from_the_address_into_a_cookie() -> None:
    token = new_token()
    gate = Gate(inside, token)
    host = {"Host": "box:8050"}
    assert knock(gate, host)[0] == 401
    assert knock(gate, host, query="token=wrong")[0] == 401
    assert knock(gate, host, "POST", query=f"token={token}")[0] == 401
    status, headers = knock(gate, host, path="/model", query=f"layer=3&token={token}")
    assert (status, headers["location"]) == (303, "/model?layer=3")
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={token};")
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert knock(gate, {**host, "Cookie": f"other=1; {COOKIE}={token}"})[0] == 200
    assert knock(gate, {**host, "Cookie": f"{COOKIE}={token[:-1]}"})[0] == 401
    assert knock(gate, {**host, "Cookie": f"{COOKIE}={token}", "Origin": "http://evil.example"}, "POST")[0] == 403


def test_a_login_leads_to_no_other_host() -> None:
    token = new_token()
    _, headers = knock(Gate(inside, token), {"Host": "box"}, path="//evil.example/x", query=f"token={token}")
    assert headers["location"] == "/evil.example/x"


def test_tokens_differ() -> None:
    assert len({new_token() for _ in range(20)}) == 20
    assert len(new_token()) >= 40
