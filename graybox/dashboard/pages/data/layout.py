"""What the data page is made of. The grid asks for its rows itself, by assets/samples.js."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard import ids, theme
from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon

DETAIL = "sample-shown"
"""Store: the row whose details are shown."""
IMAGE, SHOW_LABELS = ({"type": kind, "of": DETAIL} for kind in ("sample-image", "show-labels"))
"""The large picture and its switch. Ids of this kind may be missing, as they are until a sample is chosen."""
CHANGED = ids.SAMPLES_CHANGED
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


_ABOVE = {"zIndex": 500}
"""Lists open above the grid and the header."""


def layout() -> html.Div:
    """Filters, actions, the grid, and the sample looked at."""
    return html.Div(
        [
            html.Div([_filters(), _actions()], className="gb-toolbar"),
            html.Div(
                [
                    html.Div(
                        [_grid(), html.Div(id="samples-problem", className="gb-grid-problem gb-hidden")],
                        className="gb-card gb-grid-card",
                    ),
                    html.Aside(nothing_chosen(), id="sample-detail", className="gb-card gb-detail"),
                ],
                className="gb-data",
            ),
            dcc.Store(id=DETAIL),
            dcc.Store(id=CHANGED, data=0),
            dcc.Store(id="samples-asked"),
        ]
    )


def _filters() -> html.Div:
    statuses = [("", "In and out"), ("in", "In training"), ("discarded", "Discarded")]
    return html.Div(
        [
            _field("filter-id", "Id", "Id contains", 104, leftSection=icon("search", 14)),
            _choice("filter-split", [("", "All splits")], "Split", 116),
            _choice("filter-status", statuses, "In training or discarded", 132),
            dmc.MultiSelect(
                id="filter-label",
                data=[],
                value=[],
                placeholder="Any label",
                size="xs",
                searchable=True,
                clearable=True,
                comboboxProps=_ABOVE,
                className="gb-filter-label",
                **attributes({"aria-label": "Label"}),
            ),
            _field("filter-min-loss", "Loss from", "Lowest loss", 86),
            _field("filter-max-loss", "to", "Highest loss", 66),
            dmc.Switch(id="filter-wrong", label="Wrong only", size="xs", checked=False),
        ],
        className="gb-filters",
    )


def _field(name: str, placeholder: str, label: str, width: int, **more: Any) -> dmc.TextInput:
    return dmc.TextInput(
        id=name, placeholder=placeholder, debounce=400, size="xs", w=width, **more, **attributes({"aria-label": label})
    )


def _choice(name: str, options: list[tuple[str, str]], label: str, width: int) -> dmc.Select:
    return dmc.Select(
        id=name,
        data=[{"value": value, "label": text} for value, text in options],
        value=options[0][0],
        size="xs",
        w=width,
        allowDeselect=False,
        comboboxProps=_ABOVE,
        **attributes({"aria-label": label}),
    )


def _actions() -> html.Div:
    return html.Div(
        [
            html.Span("", id="samples-count", className="gb-muted gb-small"),
            html.Button(
                icon("refresh", 16),
                id="samples-refresh",
                className="gb-button gb-square",
                n_clicks=0,
                title="Read the samples again",
                **attributes({"aria-label": "Read the samples again"}),
            ),
            html.Button(
                [icon("restore", 16), html.Span("Restore", id="restore-samples-text")],
                id="restore-samples",
                className="gb-button",
                disabled=True,
                n_clicks=0,
            ),
            html.Button(
                [icon("trash", 16), html.Span("Discard", id="discard-text")],
                id="discard",
                className="gb-button gb-danger",
                disabled=True,
                n_clicks=0,
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
                "headerName": "Prediction",
                "field": "prediction",
                "minWidth": 108,
                "flex": 1.2,
                "cellClassRules": {"gb-wrong": "params.data && params.data.wrong"},
            },
            {
                "headerName": "Loss",
                "field": "loss",
                "minWidth": 92,
                "flex": 1.2,
                "type": "rightAligned",
                "valueFormatter": {"function": "params.data ? params.data.loss_text : ''"},
                "cellRenderer": "LossBar",
                "sortingOrder": ["desc", "asc", None],
            },
            {"headerName": "Seen", "field": "encounters", "minWidth": 78, "flex": 0.8, "type": "rightAligned"},
            {"headerName": "Last at age", "field": "last_age", "minWidth": 112, "flex": 1, "type": "rightAligned"},
            {
                "headerName": "Status",
                "field": "discarded",
                "minWidth": 104,
                "flex": 1,
                "cellRenderer": "SampleStatus",
            },
        ],
        defaultColDef={"sortable": True, "resizable": False, "suppressHeaderMenuButton": True, "suppressMovable": True},
        dashGridOptions={
            "theme": theme.GRID,
            "rowHeight": 46,
            "headerHeight": 40,
            "cacheBlockSize": 100,
            "maxBlocksInCache": 50,
            # Each request of the component's own source, which nobody answers, takes a slot for good.
            "maxConcurrentDatasourceRequests": 6,
            "infiniteInitialRowCount": 20,
            "animateRows": False,
            "rowSelection": {"mode": "multiRow", "enableClickSelection": True, "headerCheckbox": False},
            "selectionColumnDef": {"width": 44, "minWidth": 44, "maxWidth": 44, "pinned": None},
            "suppressNoRowsOverlay": False,
            "blockLoadDebounceMillis": 60,
            "cacheOverflowSize": 2,
            "rowClassRules": {"gb-discarded": "params.data && params.data.discarded"},
        },
        getRowId="params.data.key",
        style={"height": "100%", "width": "100%"},
        className="gb-grid",
    )


def nothing_chosen() -> html.Div:
    """What the side panel says before a sample is chosen."""
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
    image: Any = html.Div(icon("photo-off", 40), className="gb-detail-image gb-no-image")
    switch = []
    if row.get("image"):
        about = {"id": IMAGE, "key": row["image"], "alt": f"sample {row['sample_id']}"}
        image = html.Img(src=row["image"], className="gb-detail-image", **about)
        # One class for the whole picture says nothing of places in it.
        if not row["label"]:
            switch = [dmc.Switch(id=SHOW_LABELS, label="Show labels", size="xs", checked=False, persistence=True)]
    word = (
        "discarded" if row["discarded"] else "wrong" if row["wrong"] else "right" if row["prediction"] else "not seen"
    )
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
        *switch,
    ]
