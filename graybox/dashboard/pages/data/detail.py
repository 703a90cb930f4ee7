"""One sample in the side panel: its picture, what is known of it, its losses over time."""

from __future__ import annotations

import math
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from graybox.dashboard.icons import icon
from graybox.dashboard.pages.data.columns import TITLES
from graybox.dashboard.theme import FONT
from graybox.dashboard.view import count, number
from graybox.proto import experiment_service_pb2 as pb

DETAIL = "sample-shown"
"""Store: the row whose details are shown."""
IMAGE, SHOW_LABELS = ({"type": kind, "of": DETAIL} for kind in ("sample-image", "show-labels"))
"""The large picture and its switch. Ids of this kind may be missing, as they are until a sample is chosen."""
LINE = "#e8457a"


def panel() -> html.Aside:
    """The panel, with no sample in it."""
    graph = dcc.Graph(
        id="sample-losses-plot", figure=losses(pb.LossHistory()), responsive=True, className="gb-graph",
        config={"displayModeBar": False, "showTips": False},
    )  # fmt: skip
    return html.Aside(
        [
            html.Div(nothing_chosen(), id="sample-picture", className="gb-detail-picture"),
            html.Div(
                [html.Div("Loss over time", className="gb-detail-heading"), html.Div(graph, className="gb-losses")],
                id="sample-losses",
                className="gb-hidden",
            ),
            html.Dl([], id="sample-facts", className="gb-facts"),
        ],
        id="sample-detail",
        className="gb-card gb-detail",
    )


def nothing_chosen() -> html.Div:
    """What the panel says before a sample is chosen."""
    return html.Div(
        [
            html.Span(icon("photo-off", 30), className="gb-empty-icon"),
            html.Div("No sample chosen", className="gb-empty-title"),
            html.Div("Click a row to look at it. Ctrl or Shift and click select several.", className="gb-muted"),
        ],
        className="gb-empty",
    )


def picture(row: dict[str, Any], note: str = "", error: str = "", labels_drawn: bool = False) -> list[Any]:
    """One sample large, and what it is called. row: as the grid has it; the rest as in SampleDetail."""
    image: Any = html.Div(icon("photo-off", 40), className="gb-detail-image gb-no-image")
    below: list[Any] = []
    if row.get("image") and not error:
        about = {"id": IMAGE, "key": row["image"], "alt": f"sample {row['sample_id']}"}
        image = html.Img(src=row["image"], className="gb-detail-image", **about)
        if labels_drawn:
            below.append(
                dmc.Switch(id=SHOW_LABELS, label="Show masks and boxes", size="xs", checked=False, persistence=True)
            )
    below += [html.Div(text, className="gb-muted gb-small gb-image-note") for text in (note, error) if text]
    word = (
        "discarded" if row["discarded"] else "wrong" if row["wrong"] else "right" if row["prediction"] else "not seen"
    )
    head = [
        html.Span(f"{row['origin']} / {row['sample_id']}", className="gb-detail-title"),
        html.Span(word, className=f"gb-chip gb-chip-{word.replace(' ', '-')}"),
    ]
    return [html.Div([image, *below], className="gb-detail-image-part"), html.Div(head, className="gb-detail-head")]


def facts(row: dict[str, Any]) -> list[Any]:
    """What is known of a sample, as the grid has it."""
    label: Any = row["label"] or "–"
    if row.get("original"):
        label = [label, html.Span(f" · was {row['original']}", className="gb-corrected")]
    tags = [html.Span(tag, className="gb-chip gb-tag") for tag in row.get("tags", ())]
    told = [
        ("Label", label),
        ("Prediction", row["prediction"] or "–"),
        *((("Tags", html.Span(tags, className="gb-tags")),) if tags else ()),
        ("Loss", row["loss_text"] or "–"),
        ("Times seen", count(row["encounters"])),
        ("Last at age", row["last_age"] or "–"),
        *((TITLES.get(key) or key.replace("_", " ").capitalize(), _said(key, value)) for key, value in _more(row)),
    ]
    return [part for name, value in told for part in (html.Dt(name), html.Dd(value))]


def _more(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Scores in the order of the grid's columns, then the rest."""
    order = {name: place for place, name in enumerate(TITLES)}
    return sorted(row.get("more", {}).items(), key=lambda item: (order.get(item[0], len(order)), item[0]))


def _said(name: str, value: str) -> str:
    """A score in few characters; what the data set tells, as it stands."""
    try:
        figure = float(value) if name in TITLES else math.nan
    except ValueError:
        return value
    if not math.isfinite(figure):
        return value
    return count(figure) if figure.is_integer() else number(figure)


def losses(history: pb.LossHistory) -> dict[str, Any]:
    """The losses of one sample over its encounters, as a plotly figure."""
    numbers = [encounter + 1 for encounter in history.encounters]
    axis = {"automargin": True, "fixedrange": True, "zeroline": False, "ticks": "", "nticks": 5}
    title = {"text": "times seen", "standoff": 4, "font": {"size": 11}}
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": numbers,
                "y": [float(f"{loss:.6g}") if loss - loss == 0 else None for loss in history.losses],
                "line": {"color": LINE, "width": 1.6},
                "marker": {"size": 4.5, "color": LINE},
                "customdata": [count(seen) for seen in numbers],
                "hovertemplate": "loss %{y:.4~g}, encounter %{customdata}<extra></extra>",
            }
        ],
        "layout": {
            "margin": {"l": 4, "r": 6, "t": 6, "b": 4},
            "autosize": True,
            "showlegend": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 11, "family": FONT},
            "hoverlabel": {"font": {"size": 12, "family": FONT}},
            "xaxis": {**axis, "title": title, "showgrid": False, "tickformat": ",d"},
            "yaxis": {**axis, "rangemode": "tozero"},
        },
    }
