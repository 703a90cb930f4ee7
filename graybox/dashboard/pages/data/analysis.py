"""What a query tells (`show ...`), as the page shows it: a table, a heat map or bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from graybox.dashboard.theme import FONT
from graybox.dashboard.view import count, number, share

ACCENT = "139, 107, 242"
"""Red, green and blue that can be told from the page, light or dark."""
LETTERED = 24
"""With more classes the counts do not fit into the cells; they are said on hovering."""
_DEEPEST = 0.62
"""Opacity of the fullest cell: what is written on it can be read on light and dark."""
NAME_LENGTH = 28


def title(told: Mapping[str, Any]) -> str:
    """What it is about."""
    rows = told["rows"]
    return f"{told['title'][:1].upper()}{told['title'][1:]} · of {count(rows)} sample{'' if rows == 1 else 's'}"


def body(told: Mapping[str, Any]) -> list[Any]:
    """The answer (analysis_json) as a component, with what was left out below it."""
    if not told["lines"]:
        shown: Any = html.Div("There is nothing to tell: no sample has a value.", className="gb-muted gb-analysis-none")
    elif told["kind"] == "confusion":
        shown = _plot(confusion(told), "gb-analysis-square")
    elif told["kind"] == "histogram":
        shown = _plot(histogram(told), "gb-analysis-bars")
    else:
        shown = table(told)
    notes = [html.Div(note, className="gb-muted gb-small gb-analysis-note") for note in told.get("notes", ())]
    return [shown, *notes]


def table(told: Mapping[str, Any]) -> html.Div:
    """Measures, a row for each group."""
    heads, lines = told["columns"], told["lines"]
    right = [_is_number([line[index] for line in lines]) for index in range(len(heads))]
    sides = ["gb-right gb-number" if each else "" for each in right]
    top = html.Tr([html.Th(name, className=side) for name, side in zip(heads, sides, strict=True)])
    grouped = " by " in told["title"]
    rows = []
    for line in lines:
        said = [_cell(head, value) for head, value in zip(heads, line, strict=True)]
        if grouped and line[0] is None:
            said[0] = "none"
        rows.append(html.Tr([html.Td(text, className=side) for text, side in zip(said, sides, strict=True)]))
    return html.Div(
        html.Table([html.Thead(top), html.Tbody(rows)], className="gb-table gb-table-small"),
        className="gb-analysis-table",
    )


def confusion(told: Mapping[str, Any]) -> dict[str, Any]:
    """How often which label (down) got which prediction (across), as a plotly figure.

    A cell's colour is the square root of its share of the row, so that rare mistakes of frequent classes are seen.
    """
    guesses, labels = told["columns"][1:], [line[0] for line in told["lines"]]
    counts = [[int(value or 0) for value in line[1:]] for line in told["lines"]]
    sums = [sum(line) for line in counts]
    shares = [[value / (total or 1) for value in line] for line, total in zip(counts, sums, strict=True)]
    hover = [
        [
            f"{_name(label)} taken for {_name(guess)}<br>{count(value)} of {count(total)} ({share(part)})"
            if label != guess
            else f"{_name(label)} recognised<br>{count(value)} of {count(total)} ({share(part)})"
            for guess, value, part in zip(guesses, line, parts, strict=True)
        ]
        for label, line, parts, total in zip(labels, counts, shares, sums, strict=True)
    ]
    few = max(len(labels), len(guesses)) <= LETTERED
    trace = {
        "type": "heatmap",
        "x": list(range(len(guesses))),
        "y": list(range(len(labels))),
        "z": [[math.sqrt(part) for part in line] for line in shares],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, f"rgba({ACCENT}, 0.04)"], [1, f"rgba({ACCENT}, {_DEEPEST})"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "text": [[count(value) if value else "" for value in line] for line in counts],
        "texttemplate": "%{text}" if few else "",
    }
    down, across = _axes(str(told["columns"][0]))
    figure = _figure([trace])
    figure["layout"]["xaxis"] |= _names(guesses) | {"title": {"text": across, "standoff": 6}, "side": "top"}
    figure["layout"]["yaxis"] |= _names(labels) | {"title": {"text": down}, "autorange": "reversed"}
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis] |= {"showgrid": False, "zeroline": False}
    return figure


def histogram(told: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of bins, or of values, as a plotly figure of bars."""
    lines = told["lines"]
    if told["columns"][0] == "from" and len(told["columns"]) == 3:
        first = [line[0] for line in lines]
        widths = [line[1] - line[0] for line in lines]
        bars = {
            "x": first,
            "width": [width or 1.0 for width in widths],
            "offset": 0,
            "y": [line[2] for line in lines],
            "customdata": [f"{number(line[0])} to {number(line[1])}: {count(line[2])}" for line in lines],
        }
        named: dict[str, Any] = {}
    else:
        values = [line[0] for line in lines]
        bars = {
            "x": list(range(len(lines))),
            "y": [line[1] for line in lines],
            "customdata": [f"{_name(line[0])}: {count(line[1])}" for line in lines],
        }
        named = _names(values)
    colour = {"color": f"rgba({ACCENT}, 0.75)", "line": {"width": 0}}
    figure = _figure([{"type": "bar", **bars, "marker": colour, "hovertemplate": "%{customdata}<extra></extra>"}])
    figure["layout"]["xaxis"] |= named | {"showgrid": False, "zeroline": False}
    figure["layout"]["yaxis"] |= {"zeroline": False, "rangemode": "tozero", "nticks": 6}
    figure["layout"]["bargap"] = 0.08
    return figure


def _figure(data: list[dict[str, Any]]) -> dict[str, Any]:
    axis = {"automargin": True, "fixedrange": True, "ticks": ""}
    return {
        "data": data,
        "layout": {
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "autosize": True,
            "showlegend": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 12, "family": FONT},
            "hoverlabel": {"font": {"size": 12, "family": FONT}, "align": "left"},
            "xaxis": dict(axis),
            "yaxis": dict(axis),
        },
    }


def _names(values: Sequence[Any]) -> dict[str, Any]:
    """An axis with a name for each place; of very many only some."""
    step = max(1, -(-len(values) // 50))
    places = list(range(0, len(values), step))
    return {"tickmode": "array", "tickvals": places, "ticktext": [_name(values[place]) for place in places]}


def _axes(head: str) -> tuple[str, str]:
    """(down, across) of "label \\ prediction"."""
    down, mark, across = head.partition(" \\ ")
    return (down, across) if mark else (head, "")


def _name(value: Any) -> str:
    text = "none" if value is None else "true" if value is True else "false" if value is False else str(value)
    short = text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 1]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;")  # a plot reads tags


def _plot(figure: dict[str, Any], kind: str) -> html.Div:
    graph = dcc.Graph(
        figure=figure, config={"displayModeBar": False, "showTips": False}, responsive=True, className="gb-graph"
    )
    return html.Div(graph, className=f"gb-analysis-plot {kind}")


def _is_number(cells: Sequence[Any]) -> bool:
    return all(cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells)


def _cell(head: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return share(value) if head.startswith("accuracy") else number(value)
    return str(value)
