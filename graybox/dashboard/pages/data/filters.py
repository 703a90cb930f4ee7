"""The filters above the grid, for what is asked most; they make room for the query's bar while a query is shown."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import html

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon

FILTERS = {
    "split": ("filter-split", "value"),
    "status": ("filter-status", "value"),
    "wrong": ("filter-wrong", "checked"),
    "label": ("filter-label", "value"),
    "id": ("filter-id", "value"),
    "min_loss": ("filter-min-loss", "value"),
    "max_loss": ("filter-max-loss", "value"),
}
"""By name in the grid's HTTP query: the field, and the property that holds its value."""
ABOVE = {"zIndex": 500}
"""Lists open above the grid and the header."""


def bar() -> html.Div:
    """The filters, and the way to a query that says the same."""
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
                comboboxProps=ABOVE,
                className="gb-filter-label",
                **attributes({"aria-label": "Label"}),
            ),
            _field("filter-min-loss", "Loss from", "Lowest loss", 86),
            _field("filter-max-loss", "to", "Highest loss", 66),
            dmc.Switch(id="filter-wrong", label="Wrong only", size="xs", checked=False),
            html.Button(
                "As a query",
                id="filters-to-query",
                className="gb-text-button",
                n_clicks=0,
                title="Ask for these samples in a query, to act on all of them",
            ),
        ],
        id="samples-filters",
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
        comboboxProps=ABOVE,
        **attributes({"aria-label": label}),
    )
