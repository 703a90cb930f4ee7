"""What the data page is made of. The grid asks for its rows itself, by assets/samples.js."""

from __future__ import annotations

from dash import dcc, html

from graybox.dashboard import ids
from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.pages.data import actions, columns, detail, filters, query_box

CHANGED = ids.SAMPLES_CHANGED
"""Store: grows when the grid must ask again."""
SELECTED = "samples-selected"
"""Store, filled in the browser: [{"run", "origin", "sample_id"}, ...], the rows that are selected."""
LOST = "samples-lost"
"""Store, filled in the browser: the id of a view that the backend no longer has."""


def layout() -> html.Div:
    """The query, filters, what a query tells, actions, the grid, and the sample looked at."""
    return html.Div(
        [
            query_box.box(),
            html.Div(
                [
                    filters.bar(),
                    query_box.view_bar(),
                    html.Div(
                        [
                            html.Span("", id="samples-count", className="gb-muted gb-small"),
                            html.Button(
                                icon("refresh", 16),
                                id="samples-refresh",
                                className="gb-button gb-square gb-button-small",
                                n_clicks=0,
                                title="Read the samples again",
                                **attributes({"aria-label": "Read the samples again"}),
                            ),
                        ],
                        className="gb-actions",
                    ),
                ],
                className="gb-toolbar gb-sample-bar",
            ),
            _analysis(),
            html.Div([_samples(), detail.panel()], className="gb-data"),
            actions.dialogs(),
            dcc.Store(id=detail.DETAIL),
            dcc.Store(id=CHANGED, data=0),
            dcc.Store(id=SELECTED, data=[]),
            dcc.Store(id=LOST),
            dcc.Store(id="samples-asked"),
            dcc.Store(id="export-address"),
        ]
    )


def _samples() -> html.Div:
    grid = html.Div(
        [columns.grid(), html.Div(id="samples-problem", className="gb-grid-problem gb-hidden")],
        className="gb-grid-box",
    )
    return html.Div([actions.bar(), grid], className="gb-card gb-grid-card gb-sample-card")


def _analysis() -> html.Div:
    close = html.Button(
        icon("x", 16),
        id="analysis-close",
        className="gb-button gb-square gb-button-small",
        n_clicks=0,
        title="Close",
        **attributes({"aria-label": "Close"}),
    )
    return html.Div(
        [
            html.Div([html.Span("", id="analysis-title"), close], className="gb-card-title gb-between"),
            html.Div(id="analysis-body", className="gb-analysis-body"),
        ],
        id="samples-analysis",
        className="gb-card gb-analysis gb-hidden",
    )
