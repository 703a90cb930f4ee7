"""The table of samples: its columns, which of them are shown, and the menu that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import html

from graybox.dashboard import theme
from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.samples_query import OTHER

OWN = {"encounters": "Seen", "last_age": "Last at age", "tags": "Tags", "discarded": "Status"}
"""Columns of the grid itself that can be hidden; the others always show."""
TITLES = {
    "loss_mean": "Mean loss",
    "loss_std": "Loss spread",
    "confidence": "Confidence",
    "confidence_mean": "Mean confidence",
    "confidence_std": "Confidence spread",
    "margin": "Margin",
    "margin_std": "Margin spread",
    "aum": "AUM",
    "forgetting": "Forgotten",
    "first_learnt": "First learnt",
}
"""What the columns that every run has are called here."""
ALWAYS_SEEN = frozenset(
    {"id", "split", "label", "original_label", "corrected", "prediction", "correct", "loss", "encounters", "last_age",
     "discarded", "weight"}
)  # fmt: skip
"""Columns of a query that the grid shows in another way, or that a record does not tell."""
SHOWN_FIRST = ("encounters", f"{OTHER}confidence_mean", f"{OTHER}aum", "tags", "discarded")
_DESCRIPTIONS = {
    "encounters": "how often it was seen",
    "last_age": "samples that the model had seen when it saw this one last",
    "tags": "tags that people gave it",
    "discarded": "whether it is left out of training",
}
Known = Sequence[Mapping[str, str]]
"""What "@overview" tells of columns: name, kind, description."""


def grid() -> dag.AgGrid:
    """The table; its rows come by assets/samples.js."""
    return dag.AgGrid(
        id="samples-grid",
        rowModelType="infinite",
        columnDefs=definitions(SHOWN_FIRST, ()),
        defaultColDef={
            "sortable": True,
            "resizable": False,
            "suppressHeaderMenuButton": True,
            "suppressMovable": True,
            "sortingOrder": ["asc", "desc", None],
        },
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
            "suppressMultiSort": True,
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


def definitions(chosen: Sequence[str], known: Known) -> list[dict[str, Any]]:
    """The grid's columns. chosen: those of OWN, and OTHER with a name, that are shown; known: of which a run has these
    (empty: not told yet)."""
    shown = set(chosen)
    own = {column["field"]: column for column in _own()}
    first = [column for field, column in own.items() if field not in OWN]
    other = [_other(name, kind, text) for name, kind, text in _others(known) if f"{OTHER}{name}" in shown]
    seen = [own[field] for field in ("encounters", "last_age") if field in shown]
    last = [own[field] for field in ("tags", "discarded") if field in shown]
    return [*first, *other, *seen, *last]


def _own() -> list[dict[str, Any]]:
    picture = {"cellRenderer": "Thumbnail", "width": 58, "minWidth": 58, "maxWidth": 58, "sortable": False}
    right = {"type": "rightAligned"}
    return [
        {"headerName": "", "field": "thumbnail", **picture, "cellClass": "gb-picture-cell"},
        {"headerName": "Id", "field": "sample_id", "minWidth": 76, "flex": 1},
        {"headerName": "Split", "field": "origin", "minWidth": 70, "flex": 0.8},
        {"headerName": "Label", "field": "label", "minWidth": 92, "flex": 1.2, "cellRenderer": "SampleLabel",
         "valueGetter": {"function": "sampleLabel(params)"}},
        {"headerName": "Prediction", "field": "prediction", "minWidth": 104, "flex": 1.1,
         "cellClassRules": {"gb-wrong": "params.data && params.data.wrong"}},
        {"headerName": "Loss", "field": "loss", "minWidth": 116, "flex": 1.5, **right,
         "valueFormatter": {"function": "params.data ? params.data.loss_text : ''"},
         "cellRenderer": "LossBar", "sortingOrder": ["desc", "asc", None]},
        {"headerName": OWN["encounters"], "field": "encounters", "minWidth": 74, "flex": 0.8, **right},
        {"headerName": OWN["last_age"], "field": "last_age", "minWidth": 112, "flex": 1, **right},
        {"headerName": OWN["tags"], "field": "tags", "minWidth": 110, "flex": 1.3, "sortable": False,
         "cellRenderer": "SampleTags", "valueGetter": {"function": "sampleTags(params)"}},
        {"headerName": OWN["discarded"], "field": "discarded", "minWidth": 104, "flex": 1,
         "cellRenderer": "SampleStatus"},
    ]  # fmt: skip


def _others(known: Known) -> list[tuple[str, str, str]]:
    """(name, kind, description) of the columns that are not the grid's own."""
    if not known:
        return [(name, "number", "") for name in TITLES]
    rest = [column for column in known if column["name"] not in ALWAYS_SEEN]
    return [(column["name"], column["kind"], column["description"]) for column in rest]


def _other(name: str, kind: str, description: str) -> dict[str, Any]:
    title = TITLES.get(name, name)
    column = {
        "headerName": title,
        "colId": f"{OTHER}{name}",
        "headerTooltip": f"{name}: {description}" if description else name,
        "valueGetter": {"function": "sampleScore(params)"},
        "cellRenderer": "SampleScore",
        "minWidth": max(86, min(24 + 8 * len(title), 190)),
        "flex": 1,
    }
    return {**column, "type": "rightAligned"} if kind == "number" else column


def menu() -> dmc.Popover:
    """Which columns are shown; remembered by the browser."""
    target = html.Button(
        [icon("columns", 16), html.Span("Columns", className="gb-wide")],
        id="sample-columns-options",
        n_clicks=0,
        className="gb-button",
        title="Which columns are shown",
        **attributes({"aria-label": "Columns of the table"}),
    )
    group = dmc.CheckboxGroup(
        html.Div(choices(()), id="sample-columns-list", className="gb-popover gb-columns gb-columns-long"),
        id="sample-columns",
        value=list(SHOWN_FIRST),
        persistence=True,
        persistence_type="local",
    )
    return dmc.Popover(
        [dmc.PopoverTarget(target), dmc.PopoverDropdown(group)],
        width=290,
        position="bottom-end",
        withArrow=True,
        shadow="md",
        zIndex=500,
        keepMounted=True,
    )


def choices(known: Known) -> list[Any]:
    """The boxes to tick."""
    boxes = [_box(field, title, _DESCRIPTIONS[field]) for field, title in OWN.items()]
    boxes += [_box(f"{OTHER}{name}", TITLES.get(name, name), description) for name, _, description in _others(known)]
    return boxes


def _box(value: str, title: str, description: str) -> dmc.Checkbox:
    text = description[:1].upper() + description[1:]
    return dmc.Checkbox(label=title, value=value, size="xs", radius="sm", description=text)
