"""Data: every sample with what training made of it; discard and restore."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from graybox.dashboard import ids, theme, toasts, transport
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.icons import icon

DETAIL = "sample-shown"
"""Store: the row whose details are shown."""
CHANGED = "samples-changed"
"""Store: grows when the grid must ask again."""
FILTERS = {
    "split": ("filter-split", "value"),
    "status": ("filter-status", "value"),
    "wrong": ("filter-wrong", "checked"),
    "label": ("filter-label", "value"),
    "id": ("filter-id", "value"),
    "min_loss": ("filter-min-loss", "value"),
    "max_loss": ("filter-max-loss", "value"),
}


def layout() -> html.Div:
    """Filters, actions, the grid, and the sample looked at."""
    return html.Div(
        [
            html.Div([_filters(), _actions()], className="gb-toolbar"),
            html.Div(
                [
                    html.Div([_grid(), html.Div(id="samples-problem", className="gb-grid-problem gb-hidden")],
                             className="gb-card gb-grid-card"),
                    html.Aside(_nothing_chosen(), id="sample-detail", className="gb-card gb-detail"),
                ],
                className="gb-data",
            ),
            dcc.Store(id=DETAIL),
            dcc.Store(id=CHANGED, data=0),
            dcc.Store(id="samples-asked"),
        ]
    )


def _filters() -> html.Div:
    above = {"zIndex": 500}
    return html.Div(
        [
            dmc.TextInput(
                id="filter-id", placeholder="Id", debounce=400, size="xs", w=104, leftSection=icon("search", 14),
                **{"aria-label": "Id contains"},
            ),
            dmc.Select(
                id="filter-split", data=[{"value": "", "label": "All splits"}], value="", size="xs", w=116,
                allowDeselect=False, comboboxProps=above, **{"aria-label": "Split"},
            ),
            dmc.Select(
                id="filter-status", value="", size="xs", w=132, allowDeselect=False, comboboxProps=above,
                data=[
                    {"value": "", "label": "In and out"},
                    {"value": "in", "label": "In training"},
                    {"value": "discarded", "label": "Discarded"},
                ],
                **{"aria-label": "In training or discarded"},
            ),
            dmc.MultiSelect(
                id="filter-label", data=[], value=[], placeholder="Any label", size="xs", searchable=True,
                clearable=True, comboboxProps=above, className="gb-filter-label", **{"aria-label": "Label"},
            ),
            dmc.TextInput(
                id="filter-min-loss", placeholder="Loss from", debounce=400, size="xs", w=86,
                attributes={"input": {"inputMode": "decimal"}}, **{"aria-label": "Lowest loss"},
            ),
            dmc.TextInput(
                id="filter-max-loss", placeholder="to", debounce=400, size="xs", w=66,
                attributes={"input": {"inputMode": "decimal"}}, **{"aria-label": "Highest loss"},
            ),
            dmc.Switch(id="filter-wrong", label="Wrong only", size="xs", checked=False),
        ],
        className="gb-filters",
    )


def _actions() -> html.Div:
    return html.Div(
        [
            html.Span("", id="samples-count", className="gb-muted gb-small"),
            html.Button(
                icon("refresh", 16), id="samples-refresh", className="gb-button gb-square", n_clicks=0,
                title="Read the samples again", **{"aria-label": "Read the samples again"},
            ),
            html.Button(
                [icon("restore", 16), html.Span("Restore", id="restore-samples-text")], id="restore-samples",
                className="gb-button", disabled=True, n_clicks=0,
            ),
            html.Button(
                [icon("trash", 16), html.Span("Discard", id="discard-text")], id="discard",
                className="gb-button gb-danger", disabled=True, n_clicks=0,
            ),
        ],
        className="gb-actions",
    )


def _grid() -> dag.AgGrid:
    picture = {"cellRenderer": "Thumbnail", "width": 58, "minWidth": 58, "maxWidth": 58, "sortable": False}
    return dag.AgGrid(
        id="samples-grid",
        rowModelType="infinite",
        columnDefs=[
            {"headerName": "", "field": "thumbnail", **picture, "cellClass": "gb-picture-cell"},
            {"headerName": "Id", "field": "sample_id", "minWidth": 76, "flex": 1},
            {"headerName": "Split", "field": "origin", "minWidth": 76, "flex": 1},
            {"headerName": "Label", "field": "label", "minWidth": 84, "flex": 1.2},
            {
                "headerName": "Prediction", "field": "prediction", "minWidth": 108, "flex": 1.2,
                "cellClassRules": {"gb-wrong": "params.data && params.data.wrong"},
            },
            {
                "headerName": "Loss", "field": "loss", "minWidth": 92, "flex": 1.2, "type": "rightAligned",
                "valueFormatter": {"function": "params.data ? params.data.loss_text : ''"},
                "cellRenderer": "LossBar", "sortingOrder": ["desc", "asc", None],
            },
            {"headerName": "Seen", "field": "encounters", "minWidth": 78, "flex": 0.8, "type": "rightAligned"},
            {"headerName": "Last at age", "field": "last_age", "minWidth": 112, "flex": 1, "type": "rightAligned"},
            {
                "headerName": "Status", "field": "discarded", "minWidth": 104, "flex": 1, "cellRenderer": "SampleStatus",
            },
        ],
        defaultColDef={"sortable": True, "resizable": False, "suppressHeaderMenuButton": True, "suppressMovable": True},
        dashGridOptions={
            "theme": theme.GRID, "rowHeight": 46, "headerHeight": 40, "cacheBlockSize": 100, "maxBlocksInCache": 50,
            # One of the two slots is lost to the component's own first request, which nobody answers.
            "maxConcurrentDatasourceRequests": 2, "infiniteInitialRowCount": 20, "animateRows": False,
            "rowSelection": {"mode": "multiRow", "enableClickSelection": True, "headerCheckbox": False},
            "selectionColumnDef": {"width": 44, "minWidth": 44, "maxWidth": 44, "pinned": None},
            "suppressNoRowsOverlay": False, "blockLoadDebounceMillis": 60, "cacheOverflowSize": 2,
            "rowClassRules": {"gb-discarded": "params.data && params.data.discarded"},
        },
        getRowId="params.data.key",
        style={"height": "100%", "width": "100%"},
        className="gb-grid",
    )


def _nothing_chosen() -> html.Div:
    return html.Div(
        [
            html.Span(icon("photo-off", 30), className="gb-empty-icon"),
            html.Div("No sample chosen", className="gb-empty-title"),
            html.Div("Click a row to look at it. Ctrl or Shift and click select several.", className="gb-muted"),
        ],
        className="gb-empty",
    )


def detail(row: dict[str, Any]) -> list[Any]:
    """One sample large, with everything known of it."""
    image = (
        html.Img(src=row["image"], className="gb-detail-image", alt=f"sample {row['sample_id']}")
        if row.get("image")
        else html.Div(icon("photo-off", 40), className="gb-detail-image gb-no-image")
    )
    word = "discarded" if row["discarded"] else "wrong" if row["wrong"] else "right" if row["prediction"] else "not seen"
    facts = [
        ("Label", row["label"] or "–"),
        ("Prediction", row["prediction"] or "–"),
        ("Loss", row["loss_text"] or "–"),
        ("Times seen", f"{row['encounters']:,}"),
        ("Last at age", row["last_age"] or "–"),
        *((key.replace("_", " ").capitalize(), value) for key, value in row.get("more", {}).items()),
    ]
    return [
        image,
        html.Div(
            [
                html.Span(f"{row['origin']} / {row['sample_id']}", className="gb-detail-title"),
                html.Span(word, className=f"gb-chip gb-chip-{word.replace(' ', '-')}"),
            ],
            className="gb-detail-head",
        ),
        html.Dl([part for name, value in facts for part in (html.Dt(name), html.Dd(value))], className="gb-facts"),
    ]


def register(app: Dash, hub: Hub) -> None:
    """The page's callbacks."""
    app.clientside_callback(
        ClientsideFunction("graybox", "querySamples"),
        Output("samples-asked", "data"),
        Input(ids.page("data"), "className"),
        Input(ids.FOCUS, "data"),
        Input(CHANGED, "data"),
        Input("samples-refresh", "n_clicks"),
        Input(ids.STATUS, "data"),
        *[Input(*where) for where in FILTERS.values()],
    )
    app.clientside_callback(
        ClientsideFunction("graybox", "countSelected"),
        Output("discard", "disabled"),
        Output("restore-samples", "disabled"),
        Output("discard-text", "children"),
        Output("restore-samples-text", "children"),
        Input("samples-grid", "selectedRows"),
        Input(ids.STATUS, "data"),
        Input(ids.FOCUS, "data"),
    )

    @app.callback(Output("sample-detail", "children"), Input(DETAIL, "data"), prevent_initial_call=True)
    async def show_detail(row: dict[str, Any] | None) -> Any:
        return detail(row) if row else _nothing_chosen()

    @app.callback(
        Output(ids.TOASTS, "sendNotifications", allow_duplicate=True),
        Output(CHANGED, "data"),
        Input("discard", "n_clicks"),
        Input("restore-samples", "n_clicks"),
        State("samples-grid", "selectedRows"),
        State(CHANGED, "data"),
        prevent_initial_call=True,
    )
    async def discard_or_restore(_: int, __: int, rows: list[dict[str, Any]] | None, changed: int) -> tuple[Any, Any]:
        chosen = [(row["origin"], row["sample_id"]) for row in rows or []]
        if not chosen:
            return toasts.refused("Select at least one sample first."), no_update
        try:
            response = await hub.set_discarded(chosen, ctx.triggered_id == "discard")
        except CallFailed as failure:
            return toasts.failed(failure), no_update
        return toasts.answer(response), changed + 1

    @app.callback(
        Output("filter-split", "data"),
        Output("filter-label", "data"),
        Output(transport.cursor("data"), "data"),
        Input(ids.tick("data"), "n_intervals"),
        Input(ids.FOCUS, "data"),
        State(ids.tick("data"), "disabled"),
        State(transport.cursor("data"), "data"),
        prevent_initial_call=True,
    )
    async def offer_filters(_: int | None, focus: dict[str, str], asleep: bool, held: Any) -> tuple[Any, Any, Any]:
        if asleep:
            return no_update, no_update, no_update
        try:
            names = await hub.splits(await hub.focus(focus["run"]))
        except CallFailed:
            return no_update, no_update, no_update
        classes = list(hub.status.class_names) if hub.status is not None and not focus["run"] else []
        now = [names, classes]
        if not transport.is_news(held, now):
            return no_update, no_update, no_update
        splits = [{"value": "", "label": "All splits"}, *({"value": name, "label": name} for name in names)]
        return splits, [{"value": str(index), "label": name} for index, name in enumerate(classes)], now
