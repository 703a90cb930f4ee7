"""What the metrics page is made of."""

from __future__ import annotations

import re
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon

GRAPH = "metric-graph"
"""Type of the pattern-matching ids of the plots: {"type": GRAPH, "metric": name}."""
CHOICE = "runs-choice"
"""Store: {"<run>/<branch>": shown or not}, what the user ticked; kept in the browser."""
RUNS = "runs-view"
"""Store: the rows of the list of runs."""
NAMES = "metric-names"
"""Store: which plots there are, in order."""
ZOOM = "zoom"
"""Store: {metric: {"x": [low, high], "y": [low, high]}}, what the user zoomed to."""
SUMMARY = "metrics-summary"
"""Store: the cards at the top."""


def layout() -> html.Div:
    """Cards, runs, controls, plots."""
    return html.Div(
        [
            html.Div(id="summary-cards", className="gb-cards"),
            html.Div(
                [
                    html.Div(id="runs-list", className="gb-runs", role="group", **attributes({"aria-label": "Runs"})),
                    _controls(),
                ],
                className="gb-metrics-bar gb-card",
            ),
            html.Div(_nothing_yet(), id="graphs", className="gb-graphs"),
            dcc.Store(id=CHOICE, storage_type="local"),
            dcc.Store(id=RUNS),
            dcc.Store(id=NAMES),
            dcc.Store(id=ZOOM, data={}),
            dcc.Store(id=SUMMARY),
        ]
    )


def _controls() -> html.Div:
    return html.Div(
        [
            html.Div(
                [
                    html.Span("Smoothing", className="gb-label", id="smoothing-label"),
                    dmc.Slider(
                        id="smoothing",
                        min=0,
                        max=0.99,
                        step=0.01,
                        value=0.6,
                        size="sm",
                        w=150,
                        label=None,
                        updatemode="drag",
                        persistence=True,
                        **attributes({"aria-label": "Smoothing"}),
                    ),
                    html.Span("0.60", id="smoothing-value", className="gb-number gb-muted"),
                ],
                className="gb-control",
            ),
            dmc.Switch(id="log-scale", label="Log scale", size="xs", checked=False, persistence=True),
            dmc.Switch(id="ignore-outliers", label="Ignore outliers", size="xs", checked=True, persistence=True),
            html.Div(
                [
                    html.Span(className="gb-line"),
                    "train",
                    html.Span(className="gb-line gb-line-dashed"),
                    "evaluation",
                    html.Span("◆", className="gb-mark"),
                    "checkpoint",
                    html.Span("▲", className="gb-mark"),
                    "intervention",
                ],
                className="gb-legend gb-muted",
            ),
        ],
        className="gb-controls",
    )


def _nothing_yet() -> html.Div:
    return html.Div(
        [
            html.Span(icon("chart-line", 34), className="gb-empty-icon"),
            html.Div("No curves yet", className="gb-empty-title"),
            html.Div("They appear with the first logged value of a run.", className="gb-muted"),
        ],
        className="gb-empty",
    )


def graph_cards(names: list[str]) -> Any:
    """One card per metric; empty plots that the next poll fills."""
    if not names:
        return _nothing_yet()
    return [
        html.Div(
            [
                html.Div(title(name), className="gb-card-title"),
                html.Div(
                    dcc.Graph(
                        id={"type": GRAPH, "metric": name},
                        className="gb-graph",
                        responsive=True,
                        config={"displayModeBar": False, "doubleClick": "reset+autosize", "showTips": False},
                        figure={"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}},
                    ),
                    id=f"graph-{slug(name)}",
                    className="gb-graph-box",
                ),
            ],
            className="gb-card gb-graph-card",
        )
        for name in names
    ]


def slug(name: str) -> str:
    """A metric's name as part of an element id."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


def title(name: str) -> str:
    """A metric's name as a heading."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:] if words else "(unnamed)"
