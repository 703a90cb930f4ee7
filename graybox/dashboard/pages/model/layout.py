"""What the model page is made of. Layers and tiles are drawn in the browser, by assets/model.js and neurons.js."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from graybox.dashboard import ids, transport
from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.pages.model import columns, detail, preview, tools

LAYERS = "model-layers"
"""Store: the rows of the list of layers."""
NEURONS = "model-neurons"
"""Store: the layer shown, with its neurons."""
SELECTION = "neuron-selection"
"""Store: {"run": id, "layer": id, "neurons": [index, ...], "query": what is asked of all layers, or None}."""
SHOWN = "neuron-shown"
"""Store: {"run": id, "layer": id, "neuron": index}, the neuron in the side panel; None for none."""
DEAF = "model-drawn"


def layout() -> html.Div:
    """The list of layers, the neurons of the one chosen, and one of them in detail."""
    return html.Div(
        [
            html.Div(
                [
                    html.Div(
                        [html.Span("Layers"), html.Span("", id="model-size", className="gb-muted gb-small")],
                        className="gb-card-title gb-between",
                    ),
                    html.Div(
                        id="layer-list", className="gb-layers", role="tree", **attributes({"aria-label": "Layers"})
                    ),
                ],
                className="gb-card gb-layer-card",
            ),
            html.Div([_neurons(), _table()], className="gb-model-right"),
            html.Div(id="model-problem", className="gb-card gb-empty gb-model-problem"),
            preview.dialog(),
            *(dcc.Store(id=name) for name in (LAYERS, NEURONS, SHOWN, ids.MODEL_EDITED, DEAF)),
            dcc.Store(id=SELECTION, data={"run": "", "layer": "", "neurons": [], "query": None}),
            dcc.Store(id=transport.cursor("neuron")),
        ],
        className="gb-model",
        id="model-columns",
    )


def _neurons() -> html.Div:
    return html.Div(
        [
            html.Div([html.Div("Neurons", id="layer-title"), _legend()], className="gb-card-title gb-between"),
            html.Div(id="neuron-tiles", className="gb-tiles", role="group", **attributes({"aria-label": "Neurons"})),
            html.Div([tools.selection_bar(), tools.layer_bar()], className="gb-neuron-tools gb-between"),
            html.Div(tools.action_bar(), className="gb-neuron-tools"),
        ],
        className="gb-card",
    )


def _table() -> html.Div:
    return html.Div(
        [
            html.Div(columns.grid(), className="gb-card gb-grid-card gb-neuron-card"),
            html.Aside(detail.empty(), id="neuron-detail", className="gb-card gb-neuron-detail"),
        ],
        className="gb-neuron-row",
    )


def _legend() -> html.Div:
    words = ("active", "young", "dead", "overfit", "redundant", "frozen")
    return html.Div(
        [html.Span([html.Span(className=f"gb-swatch gb-swatch-{word}"), word]) for word in words],
        className="gb-tile-legend gb-muted",
    )


def no_model(message: str) -> list[Any]:
    """What the page says where there is no model, and why."""
    return [
        html.Span(icon("binary-tree", 34), className="gb-empty-icon"),
        html.Div("No model to show", className="gb-empty-title"),
        html.Div(message, className="gb-muted"),
    ]
