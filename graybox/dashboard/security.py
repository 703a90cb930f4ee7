"""Who may talk to the dashboard: Host and Origin are checked on every request, and off loopback a login token too."""

from __future__ import annotations

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "graybox_token"
TOKEN_PARAMETER = "token"
_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        b"frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    ),
)
"""Sent with every answer. The policy keeps the page from loading anything from elsewhere, whatever a library tries."""


def new_token() -> str:
    """A login token nobody guesses."""
    return secrets.token_urlsafe(32)


class Gate:
    """ASGI middleware around the whole application.

    token: empty on loopback, where only this machine's names are accepted as Host (a page elsewhere that rebinds its
    name to 127.0.0.1 is turned away). Otherwise whoever has no valid cookie must come with ?token=...; the cookie is
    then set and the token taken out of the address.
    """

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        reason = self._objection(scope, headers)
        if reason:
            await _refuse(scope, receive, send, 403, reason)
            return
        if self._token and not self._has_cookie(headers):
            await self._login(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _objection(self, scope: Scope, headers: dict[str, str]) -> str:
        """Why a request is turned away; empty when it is not."""
        host = headers.get("host", "")
        if not self._token and _host_name(host) not in _LOOPBACK_HOSTS:
            return "This dashboard answers on this machine only: open it as http://127.0.0.1 or http://localhost."
        unsafe = scope["type"] == "websocket" or scope.get("method", "GET") not in _SAFE_METHODS
        if unsafe:
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                return "This request comes from another site."
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return "This request comes from another site."
            if scope["type"] == "websocket" and origin is None:
                return "A websocket needs an Origin header."
        return ""

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = next((value for key, value in query if key == TOKEN_PARAMETER), "")
        if scope["type"] != "http" or scope["method"] != "GET" or not self._is_token(given):
            await _refuse(
                scope,
                receive,
                send,
                401,
                "Log in with the address that weights_lab.py printed: it ends in ?token=...",
            )
            return
        rest = urlencode([(key, value) for key, value in query if key != TOKEN_PARAMETER])
        # A path that began with two slashes would name another host.
        path = "/" + scope["path"].lstrip("/\\")
        location = f"{path}?{rest}" if rest else path
        cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        await send(
            {
                "type": "http.response.start",
                "status": 303,
                "headers": [
                    (b"location", location.encode("ascii", "ignore")),
                    (b"set-cookie", cookie.encode()),
                    (b"cache-control", b"no-store"),
                ],
            }
        )
        await send({"type": "http.response.body", "body": b""})


def _host_name(host: str) -> str:
    """The name in a Host header, without the port and the brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": reason[:120]})
        return
    body = reason.encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
