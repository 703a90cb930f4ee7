"""What the model page does: reads layers and neurons, keeps the selection, sends edits that need no plan first."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from graybox.dashboard import ids, toasts, transport, undo
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.model import detail, edit_callbacks
from graybox.dashboard.pages.model.edits import OPERATIONS, OPTIONS, STRUCTURAL, edit_request
from graybox.dashboard.pages.model.layout import DEAF, LAYERS, NEURONS, SELECTION, SHOWN, no_model
from graybox.dashboard.pages.model.rows import layer_rows, neuron_rows


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    _register_browser(app)
    _register_reading(app, hub)
    _register_detail(app, hub)
    edit_callbacks.register(app, hub)

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        *[Input(name, "n_clicks") for name in OPERATIONS],
        State(SELECTION, "data"),
        *[State(name, prop) for name, prop in OPTIONS.items()],
        prevent_initial_call=True,
    )
    async def edit(*given: Any) -> toasts.Toasts:
        selection, *values = given[len(OPERATIONS) :]
        try:
            request = edit_request(str(ctx.triggered_id), selection, dict(zip(OPTIONS, values, strict=True)))
            response = await hub.act(selection["run"], "ManipulateWeights", request)
        except ValueError as error:
            return toasts.refused(str(error))
        except CallFailed as failure:
            return toasts.failed(failure)
        return undo.done(response, selection["run"])


def _register_browser(app: Dash) -> None:
    """What the browser does by itself, in assets/model.js and neurons.js."""
    app.clientside_callback(
        ClientsideFunction("graybox", "renderModel"),
        Output(DEAF, "data"),
        Input(LAYERS, "data"),
        Input(NEURONS, "data"),
        Input(SELECTION, "data"),
        Input(ids.FOCUS, "data"),
        Input("neuron-columns", "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "selectNeurons"),
        Output(SELECTION, "data"),
        *[Input(f"select-{what}", "n_clicks") for what in ("all", "none", "dead", "redundant", "apply")],
        Input(ids.MODEL_EDITED, "data"),
        State(NEURONS, "data"),
        *[State(f"select-{what}", "value") for what in ("scope", "health", "end", "amount", "unit", "statistic")],
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "enableNeuronTools"),
        Output("selection-text", "children"),
        *[Output(name, "disabled") for name in (*OPERATIONS, *STRUCTURAL)],
        Input(SELECTION, "data"),
        Input(ids.STATUS, "data"),
        Input(NEURONS, "data"),
    )


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


def _register_detail(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output("neuron-detail", "children"),
        Output(transport.cursor("neuron"), "data"),
        Input(SHOWN, "data"),
        Input(ids.tick("model"), "n_intervals"),
        State(ids.tick("model"), "disabled"),
        State(transport.cursor("neuron"), "data"),
        prevent_initial_call=True,
    )
    async def poll(shown: Any, _: int | None, asleep: bool, held: Any) -> tuple[Any, Any]:
        if asleep:
            return no_update, no_update
        if not shown:
            return (detail.empty(), [""]) if transport.is_news(held, [""]) else (no_update, no_update)
        run_id, layer_id, number = shown["run"], shown["layer"], int(shown["neuron"])
        try:
            found = await hub.neuron(run_id, layer_id, number)
        except CallFailed as failure:
            now: Any = [run_id, layer_id, number, str(failure)]
            gone = detail.empty(f"Neuron {number} cannot be shown: {failure}")
            return (gone, now) if transport.is_news(held, now) else (no_update, no_update)
        now = [run_id, layer_id, number, found.version]
        if not transport.is_news(held, now):
            return no_update, no_update
        classes = hub.status.class_names if hub.status is not None and run_id == hub.live_run else []
        return detail.panel(found.value, run_id, classes), now
