"""What the model page is made of. Layers and tiles are drawn in the browser, by assets/model.js."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard import theme
from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon

LAYERS = "model-layers"
"""Store: the rows of the list of layers."""
NEURONS = "model-neurons"
"""Store: the layer shown, with its neurons."""
SELECTION = "neuron-selection"
"""Store: {"run": id, "layer": id, "neurons": [index, ...]}, what is selected in the browser."""


def layout() -> html.Div:
    """The list of layers, and the neurons of the one chosen."""
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
            html.Div(
                [
                    html.Div(
                        [
                            html.Div(
                                [html.Div("Neurons", id="layer-title"), _legend()], className="gb-card-title gb-between"
                            ),
                            html.Div(
                                id="neuron-tiles",
                                className="gb-tiles",
                                role="group",
                                **attributes({"aria-label": "Neurons"}),
                            ),
                            _tools(),
                        ],
                        className="gb-card",
                    ),
                    html.Div(_grid(), className="gb-card gb-grid-card gb-neuron-card"),
                ],
                className="gb-model-right",
            ),
            html.Div(id="model-problem", className="gb-card gb-empty gb-model-problem"),
            *(dcc.Store(id=name) for name in (LAYERS, NEURONS)),
            dcc.Store(id=SELECTION, data={"run": "", "layer": "", "neurons": []}),
            dcc.Store(id="model-drawn"),
        ],
        className="gb-model",
        id="model-columns",
    )


def _legend() -> html.Div:
    words = ("active", "young", "dead", "frozen")
    return html.Div(
        [html.Span([html.Span(className=f"gb-swatch gb-swatch-{word}"), word]) for word in words],
        className="gb-tile-legend gb-muted",
    )


def _tools() -> html.Div:
    def link(name: str, text: str) -> html.Button:
        return html.Button(text, id=name, className="gb-text-button", n_clicks=0)

    return html.Div(
        [
            html.Div(
                [
                    html.Span("None selected", id="selection-text", className="gb-small"),
                    link("select-all", "All"),
                    link("select-none", "None"),
                    link("select-dead", "Dead"),
                ],
                className="gb-selection",
            ),
            html.Div(
                [
                    _button("freeze", "Freeze", "snowflake"),
                    _button("unfreeze", "Unfreeze", "droplet"),
                    _reinitialise(),
                    _learning_rate(),
                ],
                className="gb-actions",
            ),
        ],
        className="gb-neuron-tools",
    )


def _button(name: str, text: str, symbol: str, extra: str = "") -> html.Button:
    return html.Button(
        [icon(symbol, 16), html.Span(text)], id=name, className=f"gb-button {extra}", disabled=True, n_clicks=0
    )


def _reinitialise() -> html.Div:
    return html.Div(
        [
            _button("reinitialise", "Reinitialise", "refresh"),
            dmc.Popover(
                [
                    dmc.PopoverTarget(
                        html.Button(
                            icon("adjustments-horizontal", 16),
                            id="reinitialise-options",
                            n_clicks=0,
                            className="gb-button gb-square",
                            title="How to reinitialise",
                            **attributes({"aria-label": "How to reinitialise"}),
                        )
                    ),
                    dmc.PopoverDropdown(
                        html.Div(
                            [
                                dmc.TextInput(
                                    id="perturbation-ratio",
                                    label="Perturbation ratio",
                                    placeholder="own initialisation",
                                    description="Between 0 and 1: each weight times 1 + u, u within ± the ratio. "
                                    "Empty: the layer's own initialisation.",
                                    size="xs",
                                    value="",
                                    attributes={"input": {"inputMode": "decimal"}},
                                ),
                                dmc.Checkbox(
                                    id="zero-outgoing",
                                    label="Zero the outgoing connections",
                                    size="xs",
                                    checked=False,
                                    radius="sm",
                                    description="The network then changes only by what the old neurons contributed.",
                                ),
                            ],
                            className="gb-popover",
                        )
                    ),
                ],
                width=280,
                position="bottom-end",
                withArrow=True,
                shadow="md",
                zIndex=500,
                keepMounted=True,
            ),
        ],
        className="gb-joined",
    )


def _learning_rate() -> html.Div:
    return html.Div(
        [
            dmc.TextInput(
                id="neuron-learning-rate",
                value="",
                placeholder="× rate",
                size="sm",
                w=78,
                attributes={"input": {"inputMode": "decimal"}},
                **attributes({"aria-label": "Factor on the learning rate"}),
            ),
            _button("set-learning-rate", "Set rate", "gauge"),
        ],
        className="gb-joined",
    )


def _grid() -> dag.AgGrid:
    def column(field: str, title: str, width: int, **more: Any) -> dict[str, Any]:
        return {"field": field, "headerName": title, "minWidth": width, "flex": 1, **more}

    right = {"type": "rightAligned"}
    return dag.AgGrid(
        id="neuron-grid",
        columnDefs=[
            column("id", "Neuron", 108, sort="asc"),
            column("train", "Rate in training", 132, cellRenderer="RateBar", **right),
            column("eval", "Rate in evaluation", 144, cellRenderer="RateBar", **right),
            column("age", "Samples", 98, **right, valueFormatter={"function": "params.value.toLocaleString('en')"}),
            column("rate", "Learning rate ×", 128, **right),
            column("health", "Health", 98, cellRenderer="HealthChip"),
        ],
        rowData=[],
        defaultColDef={"sortable": True, "resizable": False, "suppressHeaderMenuButton": True, "suppressMovable": True},
        dashGridOptions={
            "theme": theme.GRID,
            "rowHeight": 36,
            "headerHeight": 38,
            "animateRows": False,
            "rowSelection": {"mode": "multiRow", "enableClickSelection": True, "selectAll": "all"},
            "selectionColumnDef": {"width": 44, "minWidth": 44, "maxWidth": 44},
        },
        getRowId="params.data.key",
        style={"height": "100%", "width": "100%"},
        className="gb-grid",
    )


def no_model(message: str) -> list[Any]:
    """What the page says where there is no model, and why."""
    return [
        html.Span(icon("binary-tree", 34), className="gb-empty-icon"),
        html.Div("No model to show", className="gb-empty-title"),
        html.Div(message, className="gb-muted"),
    ]
