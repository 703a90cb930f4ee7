"""The application factory."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import dash_mantine_components as dmc
from dash import Dash, html
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from graybox.dashboard import (
    banner,
    exports,
    header,
    hyper_parameters,
    ids,
    navigation,
    routes,
    theme,
    toasts,
    transport,
    undo,
)
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages import checkpoints, data, history, metrics, model

log = logging.getLogger(__name__)

_PAGES: dict[str, Any] = {
    "metrics": metrics,
    "data": data,
    "model": model,
    "checkpoints": checkpoints,
    "history": history,
}


def create_app(hub: Hub) -> Dash:
    """The dashboard over a hub, which starts and stops with the server. `app.server` is the ASGI application."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await hub.start()
        try:
            yield
        finally:
            await hub.stop()

    server = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    routes.register(server, hub)
    exports.register(server, hub)
    app = Dash(
        __name__,
        server=cast(Any, server),  # declared for Flask only
        backend="fastapi",
        title="Graybox",
        update_title="",
        index_string=theme.INDEX,
        assets_ignore=r"scheme\.js",
        add_log_handler=False,
        on_error=_log_error,
        enable_mcp=False,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    # The page polls (transport.py); without this Dash would open a socket that nothing here serves.
    app.backend.websocket_capability = False
    server.add_middleware(PageAddresses)
    app.layout = layout()
    header.register(app, hub)
    hyper_parameters.register(app, hub)
    navigation.register(app, hub)
    banner.register(app)
    undo.register(app, hub)
    for page in _PAGES.values():
        register: Callable[[Dash, Hub], None] = page.register
        register(app, hub)
    return app


class PageAddresses:
    """ASGI middleware: every page is Dash's one index, whatever its address (Dash prepares itself only on "/")."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].strip("/") in ids.PAGES:
            scope = {**scope, "path": "/", "raw_path": b"/"}
        await self._app(scope, receive, send)


def layout() -> dmc.MantineProvider:
    """The whole page: header, banners, one panel per page of which one is shown, status bar."""
    panels = [
        html.Section([transport.page_feed(name), page.layout()], id=ids.page(name), className="gb-page gb-hidden")
        for name, page in _PAGES.items()
    ]
    return dmc.MantineProvider(
        [
            toasts.container(),
            transport.status_feed(),
            navigation.feed(),
            undo.feed(),
            html.Header([header.layout(), navigation.layout(), hyper_parameters.layout()], className="gb-header"),
            html.Main([banner.layout(), *panels], className="gb-main"),
            header.status_bar(),
        ],
        theme=theme.MANTINE,
        defaultColorScheme="auto",
    )


def _log_error(error: Exception) -> None:
    """A defect in a callback: logged here, and the page stays as it was."""
    log.error("a callback failed", exc_info=error)
