"""What the model page does: reads layers and neurons, keeps the selection, sends edits."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from graybox.dashboard import ids, toasts, transport
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.model.layout import LAYERS, NEURONS, SELECTION, no_model
from graybox.dashboard.pages.model.rows import OPERATIONS, edit_request, layer_rows, neuron_rows


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
            response = await hub.act(selection["run"], "ManipulateWeights", request)
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
    async def poll(_: int | None, asleep: bool, focus: dict[str, str], held: Any) -> tuple[Any, Any, Any, Any, Any]:
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
            return no_update, no_update, no_model(str(failure)), "gb-model gb-model-empty", {}
        now = {"layers": layers.version, "neurons": neurons.version if neurons else 0, "run": run_id}
        if not transport.is_news(before, now):
            return (no_update,) * 5
        rows: Any = layer_rows(layers.value) if before.get("layers") != now["layers"] else no_update
        tiles: Any = no_update
        if neurons is not None and before.get("neurons") != now["neurons"]:
            tiles = neuron_rows(neurons.value, run_id)
        return rows, tiles, no_update, "gb-model", now
