"""What everybody must see on every page: that there is no backend, or that a step failed."""

from __future__ import annotations

from dash import ClientsideFunction, Dash, Input, Output, html

from graybox.dashboard import ids
from graybox.dashboard.icons import icon


def layout() -> html.Div:
    """Both panels, hidden until there is something to say."""
    return html.Div(
        [
            html.Div(
                [icon("plug-connected", 20), html.Div(id="waiting-text")],
                id="waiting-banner",
                className="gb-banner gb-hidden",
                role="status",
            ),
            html.Div(
                [
                    icon("alert-triangle", 20),
                    html.Div(
                        [
                            html.Div("A training step failed, training is paused", className="gb-banner-title"),
                            html.Div(id="error-text", className="gb-error-text"),
                            html.Details(
                                [html.Summary("Traceback"), html.Pre(id="error-traceback")], id="error-details"
                            ),
                            html.Div(
                                "Resume tries the same batch again.", className="gb-muted gb-small", id="error-hint"
                            ),
                        ],
                        className="gb-grow",
                    ),
                ],
                id="error-panel",
                className="gb-banner gb-banner-error gb-hidden",
                role="alert",
            ),
        ]
    )


def register(app: Dash) -> None:
    """Shows and hides them as the state says."""
    app.clientside_callback(
        ClientsideFunction("graybox", "renderBanners"),
        Output("waiting-banner", "className"),
        Output("waiting-text", "children"),
        Output("error-panel", "className"),
        Output("error-text", "children"),
        Output("error-traceback", "children"),
        Output("error-details", "className"),
        Input(ids.STATUS, "data"),
        prevent_initial_call=True,
    )
