"""The header: what trains, how far it is, and the button that pauses it."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from graybox.dashboard import ids, toasts, transport
from graybox.dashboard.attributes import attributes
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon
from graybox.dashboard.view import shown_run, status_view


def layout() -> html.Div:
    """Logo, state, progress, throughput, play/pause, light/dark."""
    return html.Div(
        [
            dcc.Link(
                [html.Img(src="/assets/logo.svg", width=26, height=26, alt=""), html.Span("Graybox")],
                href="/metrics",
                className="gb-logo",
                title="Graybox",
            ),
            html.Span(
                [html.Span(className="gb-dot"), html.Span("connecting", id="state-text")],
                id="state-badge",
                className="gb-state gb-state-waiting",
                role="status",
                **attributes({"data-state": "connecting"}),
            ),
            _progress(),
            html.Div(
                [
                    html.Button(
                        [
                            html.Span(icon("player-play", 16), className="gb-when-resume"),
                            html.Span(icon("player-pause", 16), className="gb-when-pause"),
                            html.Span("Resume", id="play-pause-text"),
                        ],
                        id="play-pause",
                        className="gb-button gb-primary",
                        disabled=True,
                        n_clicks=0,
                        **attributes({"data-action": "resume", "aria-label": "Resume training"}),
                    ),
                    dmc.ColorSchemeToggle(
                        id="theme-toggle",
                        lightIcon=icon("sun", 18),
                        darkIcon=icon("moon", 18),
                        variant="default",
                        size=34,
                        radius="md",
                        **attributes({"aria-label": "Light or dark"}),
                    ),
                ],
                className="gb-header-actions",
            ),
        ],
        className="gb-header-bar",
    )


def _progress() -> html.Div:
    return html.Div(
        [
            html.Div(
                [
                    html.Span("", id="progress-text", className="gb-progress-text"),
                    html.Span("", id="throughput", className="gb-muted"),
                ],
                className="gb-progress-line",
            ),
            html.Div(html.Div(id="progress-bar", className="gb-progress-fill"), className="gb-progress-track"),
        ],
        id="progress",
        className="gb-progress",
    )


def status_bar() -> html.Footer:
    """The line at the bottom: where the model is, how large, and who is talked to. Toasts appear over it."""
    return html.Footer(
        [html.Span("", id="status-activity"), html.Span("", id="status-facts", className="gb-muted")],
        className="gb-statusbar",
    )


def register(app: Dash, hub: Hub) -> None:
    """The header's callbacks."""

    @app.callback(
        Output(ids.STATUS, "data"),
        Output(transport.cursor("status"), "data"),
        Input(ids.tick("status"), "n_intervals"),
        State(transport.cursor("status"), "data"),
    )
    async def feed(_: int | None, held: int | None) -> tuple[Any, Any]:
        hub.seen()
        if not transport.is_news(held, hub.version):
            return no_update, no_update
        return status_view(hub), hub.version

    app.clientside_callback(
        ClientsideFunction("graybox", "renderHeader"),
        Output("state-text", "children"),
        Output("state-badge", "className"),
        Output("state-badge", "data-state"),
        Output("progress-text", "children"),
        Output("throughput", "children"),
        Output("progress-bar", "style"),
        Output("play-pause-text", "children"),
        Output("play-pause", "disabled"),
        Output("play-pause", "data-action"),
        Output("play-pause", "aria-label"),
        Output("status-activity", "children"),
        Output("status-facts", "children"),
        Input(ids.STATUS, "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output(ids.TOASTS, "sendNotifications"),
        Input("play-pause", "n_clicks"),
        State("play-pause", "data-action"),
        State(ids.STATUS, "data"),
        prevent_initial_call=True,
    )
    async def play_or_pause(clicks: int, action: str, status: dict[str, Any] | None) -> toasts.Toasts:
        try:
            response = await hub.set_hyper_parameters(shown_run({}, status), is_training=action == "resume")
        except CallFailed as failure:
            return toasts.failed(failure)
        return toasts.answer(response)
