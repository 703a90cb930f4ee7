"""The table of neurons: its columns, which of them are shown, and the menu that says so."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import html

from graybox.dashboard import theme
from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon

OPTIONAL = {
    "recent": ("Recent rate", 112),
    "mean": ("Mean", 84),
    "std": ("Spread", 84),
    "eval_mean": ("Mean in eval.", 108),
    "eval_std": ("Spread in eval.", 114),
    "norm": ("Weight norm", 104),
    "gradient": ("Gradient norm", 112),
    "change": ("Change", 88),
    "age": ("Samples", 92),
    "rate": ("Learning rate ×", 122),
}
"""By field: what the heading says, and the least width in pixels."""
SHOWN_FIRST = ("mean", "norm")
_TOOLTIPS = {
    "recent": "Trigger rate over a recent window of training samples",
    "mean": "Mean activation in training",
    "std": "Standard deviation of the activation in training",
    "gradient": "Norm of the gradient at the last step",
    "change": "Relative change of the weights since the last checkpoint",
    "age": "Training samples its rate is taken over",
}


def grid() -> dag.AgGrid:
    """The table; its rows come from assets/neurons.js."""

    def column(field: str, title: str, width: int, **more: Any) -> dict[str, Any]:
        return {"field": field, "headerName": title, "minWidth": width, "flex": 1, **more}

    right = {"type": "rightAligned"}
    columns = [
        column("id", "Neuron", 92, sort="asc"),
        column("train", "In training", 116, cellRenderer="RateBar", **right),
        column("eval", "In evaluation", 116, cellRenderer="RateBar", **right),
    ]
    for field, (title, width) in OPTIONAL.items():
        extra: dict[str, Any] = {"hide": field not in SHOWN_FIRST, **right}
        if field == "recent":
            extra["cellRenderer"] = "RateBar"
        else:
            extra["cellRenderer"] = "Measured"
        columns.append(column(field, title, width, headerTooltip=_TOOLTIPS.get(field, title), **extra))
    columns.append(column("state", "Health", 132, colId="health", cellRenderer="HealthChip"))
    return dag.AgGrid(
        id="neuron-grid",
        columnDefs=columns,
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


def menu() -> dmc.Popover:
    """Which of the optional columns are shown; remembered by the browser."""
    target = html.Button(
        [icon("columns", 14), html.Span("Columns")],
        id="columns-options",
        n_clicks=0,
        className="gb-text-button gb-icon-text",
        **attributes({"aria-label": "Columns of the table"}),
    )
    boxes = dmc.CheckboxGroup(
        html.Div(
            [
                dmc.Checkbox(label=title, value=field, size="xs", radius="sm", description=_TOOLTIPS.get(field, ""))
                for field, (title, _) in OPTIONAL.items()
            ],
            className="gb-popover gb-columns",
        ),
        id="neuron-columns",
        value=list(SHOWN_FIRST),
        persistence=True,
        persistence_type="local",
    )
    return dmc.Popover(
        [dmc.PopoverTarget(target), dmc.PopoverDropdown(boxes)],
        width=250,
        position="bottom-start",
        withArrow=True,
        shadow="md",
        zIndex=500,
        keepMounted=True,
    )
