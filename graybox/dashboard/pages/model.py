"""Model: layers, their neurons, and what can be done to them."""

from __future__ import annotations

import math
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from graybox.dashboard import ids, theme, toasts, transport
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon
from graybox.dashboard.view import HEALTH_WORDS, count
from graybox.proto import experiment_service_pb2 as pb

LAYERS = "model-layers"
NEURONS = "model-neurons"
SELECTION = "neuron-selection"
"""Store: {"layer": id, "neurons": [index, ...]}, what is selected in the browser."""


def layout() -> html.Div:
    """The list of layers, and the neurons of the one chosen."""
    return html.Div(
        [
            html.Div(
                [html.Div([html.Span("Layers"), html.Span("", id="model-size", className="gb-muted gb-small")],
                          className="gb-card-title gb-between"),
                 html.Div(id="layer-list", className="gb-layers", role="tree", **{"aria-label": "Layers"})],
                className="gb-card gb-layer-card",
            ),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div([html.Div("Neurons", id="layer-title"), _legend()],
                                     className="gb-card-title gb-between"),
                            html.Div(id="neuron-tiles", className="gb-tiles", role="group",
                                     **{"aria-label": "Neurons"}),
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
            dcc.Store(id=SELECTION, data={"layer": "", "neurons": []}),
            dcc.Store(id="model-drawn"),
        ],
        className="gb-model", id="model-columns",
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
                [html.Span("None selected", id="selection-text", className="gb-small"), link("select-all", "All"),
                 link("select-none", "None"), link("select-dead", "Dead")],
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
                            icon("adjustments-horizontal", 16), id="reinitialise-options", n_clicks=0,
                            className="gb-button gb-square", title="How to reinitialise",
                            **{"aria-label": "How to reinitialise"},
                        )
                    ),
                    dmc.PopoverDropdown(
                        html.Div(
                            [
                                dmc.TextInput(
                                    id="perturbation-ratio", label="Perturbation ratio", placeholder="own initialisation",
                                    description="Between 0 and 1: each weight times 1 + u, u within ± the ratio. "
                                    "Empty: the layer's own initialisation.",
                                    size="xs", value="", attributes={"input": {"inputMode": "decimal"}},
                                ),
                                dmc.Checkbox(
                                    id="zero-outgoing", label="Zero the outgoing connections", size="xs", checked=False, radius="sm",
                                    description="The network then changes only by what the old neurons contributed.",
                                ),
                            ],
                            className="gb-popover",
                        )
                    ),
                ],
                width=280, position="bottom-end", withArrow=True, shadow="md", zIndex=500, keepMounted=True,
            ),
        ],
        className="gb-joined",
    )


def _learning_rate() -> html.Div:
    return html.Div(
        [
            dmc.TextInput(
                id="neuron-learning-rate", value="", placeholder="× rate", size="sm", w=78,
                attributes={"input": {"inputMode": "decimal"}}, **{"aria-label": "Factor on the learning rate"},
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
            "theme": theme.GRID, "rowHeight": 36, "headerHeight": 38, "animateRows": False,
            "rowSelection": {"mode": "multiRow", "enableClickSelection": True, "selectAll": "all"},
            "selectionColumnDef": {"width": 44, "minWidth": 44, "maxWidth": 44},
        },
        getRowId="params.data.key",
        style={"height": "100%", "width": "100%"},
        className="gb-grid",
    )


def layer_rows(layers: list[pb.LayerRepresentation]) -> list[dict[str, Any]]:
    """The list of layers as the browser draws it, in the order of the network."""
    return [
        {
            "id": layer.layer_id, "name": layer.layer_name, "type": layer.layer_type, "neurons": layer.neurons_count,
            "shape": _shape(layer), "parameters": count(layer.parameter_count), "frozen": layer.frozen_count,
            "dead": layer.dead_count, "train": _rate(layer.train_trigger_rate), "eval": _rate(layer.eval_trigger_rate),
            "output": layer.is_output,
        }
        for layer in layers
    ]


def neuron_rows(layer: pb.LayerRepresentation) -> dict[str, Any]:
    """The neurons of one layer as the browser draws them."""
    return {
        "layer": layer.layer_id, "name": layer.layer_name, "output": layer.is_output,
        "neurons": [
            {
                "key": f"{layer.layer_id}/{neuron.neuron_id}", "id": neuron.neuron_id, "train": _rate(neuron.train_trigger_rate),
                "eval": _rate(neuron.eval_trigger_rate), "age": neuron.train_age, "eval_age": neuron.eval_age,
                "frozen": neuron.frozen, "rate": float(f"{neuron.learning_rate:.6g}"),
                "health": HEALTH_WORDS.get(neuron.health, ""),
            }
            for neuron in layer.neurons
        ],
    }


def _shape(layer: pb.LayerRepresentation) -> str:
    kernel = "×".join(str(size) for size in layer.kernel_size)
    return f"{layer.incoming_neurons_count} → {layer.neurons_count}" + (f", {kernel}" if kernel else "")


def _rate(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else 0.0


OPERATIONS = {
    "freeze": pb.FREEZE,
    "unfreeze": pb.UNFREEZE,
    "reinitialise": pb.REINITIALIZE,
    "set-learning-rate": pb.CHANGE_LEARNING_RATE,
}


def edit_request(
    button: str, selection: dict[str, Any], ratio: str, zero_outgoing: bool, factor: str
) -> pb.ManipulateWeightsRequest:
    """The edit that a button stands for. Raises ValueError with a message for people.

    An empty selection is refused here: on the wire it would mean all neurons of the layer.
    """
    neurons = selection.get("neurons") or []
    if not selection.get("layer") or not neurons:
        raise ValueError("Select at least one neuron first.")
    request = pb.ManipulateWeightsRequest(
        operation=OPERATIONS[button], layer_id=str(selection["layer"]), neuron_ids=neurons
    )
    if button == "reinitialise":
        request.zero_outgoing = zero_outgoing
        if ratio.strip():
            request.perturbation_ratio = _number(ratio, "The perturbation ratio is a number between 0 and 1")
    if button == "set-learning-rate":
        request.learning_rate = _number(factor, "The factor on the learning rate is a number of 0 or more, such as 0.5")
    return request


def _number(text: str, rule: str) -> float:
    try:
        return float(text.strip())
    except ValueError:
        raise ValueError(f"{rule}, not {text.strip()!r}.") from None


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    _register_reading(app, hub)
    app.clientside_callback(
        ClientsideFunction("graybox", "renderModel"),
        Output("model-drawn", "data"),
        Input(LAYERS, "data"),
        Input(NEURONS, "data"),
        Input(SELECTION, "data"),
        Input(ids.FOCUS, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "selectNeurons"),
        Output(SELECTION, "data"),
        Input("select-all", "n_clicks"),
        Input("select-none", "n_clicks"),
        Input("select-dead", "n_clicks"),
        State(NEURONS, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "enableNeuronTools"),
        Output("selection-text", "children"),
        *[Output(name, "disabled") for name in OPERATIONS],
        Input(SELECTION, "data"),
        Input(ids.STATUS, "data"),
    )

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        *[Input(name, "n_clicks") for name in OPERATIONS],
        State(SELECTION, "data"),
        State("perturbation-ratio", "value"),
        State("zero-outgoing", "checked"),
        State("neuron-learning-rate", "value"),
        prevent_initial_call=True,
    )
    async def edit(*given: Any) -> toasts.Toasts:
        selection, ratio, zero_outgoing, factor = given[len(OPERATIONS) :]
        try:
            request = edit_request(str(ctx.triggered_id), selection, ratio or "", bool(zero_outgoing), factor or "")
            response = await hub.act("ManipulateWeights", request)
        except ValueError as error:
            return toasts.refused(str(error))
        except CallFailed as failure:
            return toasts.failed(failure)
        return toasts.answer(response)


def _register_reading(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output(LAYERS, "data"),
        Output(NEURONS, "data"),
        Output("model-problem", "children"),
        Output("model-columns", "className"),
        Output(transport.cursor("model"), "data"),
        Input(ids.tick("model"), "n_intervals"),
        Input(ids.tick("model"), "disabled"),
        Input(ids.FOCUS, "data"),
        State(transport.cursor("model"), "data"),
        prevent_initial_call=True,
    )
    async def poll(
        _: int | None, asleep: bool, focus: dict[str, str], held: Any
    ) -> tuple[Any, Any, Any, Any, Any]:
        if asleep:
            return (no_update,) * 5
        run_id = await hub.focus(focus["run"])
        before = held or {}
        try:
            layers = await hub.layers(run_id)
            known = [layer.layer_id for layer in layers.value]
            chosen = focus["layer"] if focus["layer"] in known else next(iter(known), "")
            neurons = await hub.layer(run_id, chosen) if chosen else None
        except CallFailed as failure:
            return no_update, no_update, _problem(str(failure)), "gb-model gb-model-empty", {}
        now = {"layers": layers.version, "neurons": neurons.version if neurons else 0, "run": run_id}
        if not transport.is_news(before, now):
            return (no_update,) * 5
        rows = layer_rows(layers.value) if before.get("layers") != now["layers"] else no_update
        tiles = no_update
        if neurons is not None and before.get("neurons") != now["neurons"]:
            tiles = neuron_rows(neurons.value)
        return rows, tiles, no_update, "gb-model", now


def _problem(message: str) -> list[Any]:
    return [
        html.Span(icon("binary-tree", 34), className="gb-empty-icon"),
        html.Div("No model to show", className="gb-empty-title"),
        html.Div(message, className="gb-muted"),
    ]
