"""Where queries are written: the box, its help, the bar that says what is shown. Its ways are in assets/query.js."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.pages.data.examples import EXAMPLES, RULES

ASKED = "query-asked"
"""Store, filled in the browser: {"text", "natural", "within", "run", "count"}, what was asked last."""
ANSWERED = "query-answered"
"""Store: {"text", "natural", "count"}, what was understood, to be remembered by the browser."""
VIEW = "samples-view"
"""Store: what the grid shows, as asking.py makes it; None: all samples."""
OVERVIEW = "samples-overview"
"""Store: {"run", "columns": [{"name", "kind", "description"}, ...], "tags", "classes", "splits"}."""
PROPOSALS = "query-edits"
"""Store: {"run", "matches", "edits": [{"description", "request"}, ...]}, which a language model proposed and nobody has
made yet."""
PROPOSAL = "proposed-edit"
"""Type of the pattern-matching ids of the buttons that make them: {"type": PROPOSAL, "index": n}."""

PLACEHOLDER = "Which samples?  For example:  loss > p95 and label != prediction sortby loss desc"
MAX_LENGTH = 4_000


def box() -> html.Div:
    """The field with its buttons, what is wrong with the query, and what a language model proposes."""
    return html.Div(
        [
            html.Div(
                [
                    html.Span(icon("search", 17), className="gb-query-icon gb-muted"),
                    _field(),
                    dmc.Switch(
                        id="query-natural", label="Plain English", size="xs", checked=False, persistence=True,
                        persistence_type="local",
                    ),
                    _button("query-recent", "history", "Recent queries"),
                    _help(),
                    html.Button(
                        "Find", id="query-run", className="gb-button gb-primary gb-button-small", n_clicks=0,
                        title="Find the samples (Enter)",
                    ),
                    html.Div(id="query-suggestions", className="gb-suggestions gb-hidden", role="listbox"),
                ],
                id="query-box",
                className="gb-query gb-card",
                role="search",
            ),
            html.Div(id="query-problem", className="gb-query-problem gb-hidden", role="alert"),
            html.Div(id="query-proposals", className="gb-hidden"),
            *(dcc.Store(id=name) for name in (ASKED, ANSWERED, VIEW, OVERVIEW, PROPOSALS)),
        ],
        className="gb-query-place",
    )  # fmt: skip


def _field() -> dmc.Textarea:
    return dmc.Textarea(
        id="query",
        value="",
        placeholder=PLACEHOLDER,
        autosize=True,
        minRows=1,
        maxRows=6,
        variant="unstyled",
        className="gb-query-field",
        attributes={
            "input": {
                "spellCheck": False,
                "autoComplete": "off",
                "autoCapitalize": "off",
                "maxLength": MAX_LENGTH,
                "role": "combobox",
                "aria-label": "Query",
                "aria-controls": "query-suggestions",
                "aria-expanded": "false",
                "aria-autocomplete": "list",
            }
        },
    )


def _button(name: str, symbol: str, title: str) -> html.Button:
    return html.Button(
        icon(symbol, 16), id=name, className="gb-button gb-square gb-button-small", n_clicks=0, title=title,
        **attributes({"aria-label": title}),
    )  # fmt: skip


def _help() -> dmc.Popover:
    examples = [
        html.Button(
            [html.Code(query), html.Span(text, className="gb-muted")],
            className="gb-example",
            type="button",
            **attributes({"data-query": query}),
        )
        for query, text in EXAMPLES
    ]
    rules = [part for written, text in RULES for part in (html.Dt(html.Code(written)), html.Dd(text))]
    return dmc.Popover(
        [
            dmc.PopoverTarget(_button("query-help", "info-circle", "How to ask, with examples")),
            dmc.PopoverDropdown(
                html.Div(
                    [
                        html.Div("Examples: click one to ask it", className="gb-label"),
                        html.Div(examples, className="gb-examples"),
                        html.Div("The language", className="gb-label"),
                        html.Dl(rules, className="gb-rules"),
                    ],
                    className="gb-popover gb-help",
                )
            ),
        ],
        id="query-help-popover",
        width="min(680px, calc(100vw - 24px))",
        position="bottom-end",
        withArrow=True,
        shadow="md",
        zIndex=500,
    )


def view_bar() -> html.Div:
    """What the grid shows: the query as it was understood, how many it found, and the ways on from there."""
    return html.Div(
        [
            html.Span("", id="view-count", className="gb-strong gb-nowrap"),
            html.Code("", id="view-query", className="gb-view-query"),
            dmc.Switch(id="query-within", label="Search within", size="xs", checked=False),
            html.Button("Draw others", id="view-redraw", className="gb-text-button gb-hidden", n_clicks=0),
            html.Button(
                [icon("x", 14), html.Span("Clear")],
                id="view-clear",
                className="gb-button gb-button-small",
                n_clicks=0,
                title="Show all samples again (@reset)",
            ),
        ],
        id="view-bar",
        className="gb-view-bar gb-hidden",
    )


def problem(before: str, place: str, after: str, message: str) -> list[Any]:
    """What is wrong with a query, with its place marked. before, place, after: the query in three parts, all of them
    empty where the error is nowhere in it."""
    marked: list[Any] = []
    if before or place or after:
        at_end = not place
        mark = html.Mark("\u00a0" if at_end else place, className="gb-query-mark")
        marked = [html.Div([before, mark, after], className="gb-mono gb-query-marked")]
    return [*marked, html.Div([icon("alert-triangle", 15), html.Span(message)], className="gb-query-message")]
