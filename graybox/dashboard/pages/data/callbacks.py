"""What the data page does by itself: what one can ask and filter by, which columns show, the sample looked at."""

from __future__ import annotations

from typing import Any

from dash import MATCH, ClientsideFunction, Dash, Input, Output, State, no_update

from graybox.dashboard import ids, transport
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.data import columns, edit_callbacks, export_callbacks, query_callbacks
from graybox.dashboard.pages.data.actions import TARGET
from graybox.dashboard.pages.data.detail import DETAIL, IMAGE, SHOW_LABELS, facts, losses, nothing_chosen, picture
from graybox.dashboard.pages.data.edits import ACTIONS
from graybox.dashboard.pages.data.filters import FILTERS
from graybox.dashboard.pages.data.layout import CHANGED, SELECTED
from graybox.dashboard.pages.data.query_box import OVERVIEW, VIEW
from graybox.dashboard.sample_reader import SampleReader

OVERVIEW_TICKS = 30
"""Of the page's clock: so often it is asked again which columns there are, for code that logs one more."""
_HIDDEN = "gb-hidden"


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    _register_browser(app)
    _register_offers(app, hub)
    _register_columns(app)
    _register_detail(app, SampleReader(hub))
    query_callbacks.register(app, hub)
    edit_callbacks.register(app, hub)
    export_callbacks.register(app, hub)


def _register_browser(app: Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("graybox", "querySamples"),
        Output("samples-asked", "data"),
        Input(ids.page("data"), "className"),
        Input(ids.FOCUS, "data"),
        Input(CHANGED, "data"),
        Input("samples-refresh", "n_clicks"),
        Input(ids.STATUS, "data"),
        Input(VIEW, "data"),
        *[Input(*where) for where in FILTERS.values()],
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "offerActions"),
        Output(TARGET, "data"),
        Output(TARGET, "value"),
        *[Output(f"{name}-text", "children") for name in ACTIONS],
        *[Output(name, "disabled") for name in ACTIONS],
        *[Output(f"{name}-options", "disabled") for name in ("tag", "label", "weigh")],
        Output("export-what", "children"),
        Input(SELECTED, "data"),
        Input(VIEW, "data"),
        Input(TARGET, "value"),
        Input(ids.STATUS, "data"),
        Input(ids.FOCUS, "data"),
        *[Input(*where) for where in FILTERS.values()],
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "showLabels"),
        Output({**IMAGE, "of": MATCH}, "src"),
        Input({**SHOW_LABELS, "of": MATCH}, "checked"),
        State({**IMAGE, "of": MATCH}, "src"),
    )


def _register_offers(app: Dash, hub: Hub) -> None:
    @app.callback(
        Output("filter-split", "data"),
        Output("filter-label", "data"),
        Output(OVERVIEW, "data"),
        Output("tag-name", "data"),
        Output("label-name", "data"),
        Output(transport.cursor("data"), "data"),
        Input(ids.tick("data"), "n_intervals"),
        Input(ids.FOCUS, "data"),
        Input(CHANGED, "data"),
        State(ids.tick("data"), "disabled"),
        State(transport.cursor("data"), "data"),
        prevent_initial_call=True,
    )
    async def offer(ticks: int | None, focus: dict[str, str], changed: int, asleep: bool, held: Any) -> tuple[Any, ...]:
        if asleep:
            return (no_update,) * 6
        run_id = await hub.focus(focus["run"])
        before = held or {}
        now: dict[str, Any] = {"run": run_id, "changed": changed, "round": (ticks or 0) // OVERVIEW_TICKS}
        now["classes"] = classes = hub.class_names(run_id)
        try:
            now["splits"] = splits = await hub.splits(run_id)
        except CallFailed:
            return (no_update,) * 6
        if before.get("told") and all(before.get(name) == now[name] for name in now):
            return (no_update,) * 6
        known: dict[str, Any] = {"run": run_id, "columns": [], "tags": [], "classes": classes, "splits": splits}
        try:
            told = (await hub.overview(run_id)).value
        except CallFailed:
            now["told"] = False
        else:
            known["columns"] = [{"name": c.name, "kind": c.kind, "description": c.description} for c in told.columns]
            known["tags"] = list(told.unique_tags)
            now["told"] = True
        if not transport.is_news(before.get("known"), known):
            return (*(no_update,) * 5, {**now, "known": known})
        offered = [{"value": "", "label": "All splits"}, *({"value": name, "label": name} for name in splits)]
        labels = [{"value": str(index), "label": name} for index, name in enumerate(classes)]
        return offered, labels, known, known["tags"], list(dict.fromkeys(classes)), {**now, "known": known}


def _register_columns(app: Dash) -> None:
    @app.callback(Output("samples-grid", "columnDefs"), Input("sample-columns", "value"), Input(OVERVIEW, "data"))
    async def show_columns(chosen: list[str] | None, overview: dict[str, Any] | None) -> Any:
        return columns.definitions(chosen or (), (overview or {}).get("columns", ()))

    @app.callback(Output("sample-columns-list", "children"), Input(OVERVIEW, "data"), prevent_initial_call=True)
    async def offer_columns(overview: dict[str, Any] | None) -> Any:
        return columns.choices((overview or {}).get("columns", ()))


def _register_detail(app: Dash, reader: SampleReader) -> None:
    @app.callback(
        Output("sample-picture", "children"),
        Output("sample-facts", "children"),
        Output("sample-losses", "className"),
        Output("sample-losses-plot", "figure"),
        Input(DETAIL, "data"),
        prevent_initial_call=True,
    )
    async def show_detail(row: dict[str, Any] | None) -> tuple[Any, Any, Any, Any]:
        if not row:
            return nothing_chosen(), [], _HIDDEN, no_update
        try:
            detail = await reader.read(row["run"], row["origin"], row["sample_id"])
        except CallFailed as failure:
            return picture(row, note=str(failure)), facts(row), _HIDDEN, no_update
        shown = picture(row, detail.note, detail.error, detail.labels_drawn)
        history = detail.record.loss_history
        if not history.losses:
            return shown, facts(row), _HIDDEN, no_update
        return shown, facts(row), "gb-losses-part", losses(history)
