"""Plots as plain values: which traces there are, what is in them, and how a change is sent. Knows no Dash callback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dash import Patch

from graybox.dashboard.series import Series, robust_range, smooth, thin
from graybox.dashboard.theme import FONT

FEW_POINTS = 60
"""A curve with fewer points (evaluations) is shown as it is: smoothing would only make it lag."""


_MARK_STYLES = (("diamond", 0.02), ("triangle-up", 0.06))
"""(symbol, height as a share of the plot) of checkpoints and of interventions."""


@dataclass(frozen=True)
class Line:
    """One curve of one plot. version changes with the data of its run."""

    run_id: str
    branch: int
    split: str
    label: str
    colour: str
    dash: str
    series: Series
    version: str


@dataclass(frozen=True)
class Marks:
    """Points of interest along the age axis: (age, text, colour) each."""

    points: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True)
class View:
    """How a plot is looked at."""

    smoothing: float = 0.0
    log: bool = False
    ignore_outliers: bool = True
    zoom: dict[str, list[float]] = field(default_factory=dict)


def structure(lines: Sequence[Line], view: View) -> str:
    """What must stay the same for a change to be sent as data only."""
    traces = ";".join(f"{line.run_id}/{line.branch}/{line.split}/{line.colour}/{_has_points(line)}" for line in lines)
    return f"{traces}|{'log' if view.log else 'linear'}"


def versions(lines: Sequence[Line], marks: Sequence[Marks], view: View) -> list[str]:
    """What identifies the data of each trace (a line has two), for comparing with what a tab has."""
    how = f"{view.smoothing:g}:{view.zoom.get('x', '')}:{view.ignore_outliers}"
    return [f"{line.version}:{how}" for line in lines] + [str(hash(mark.points)) for mark in marks]


def full_figure(lines: Sequence[Line], marks: Sequence[Marks], view: View, percent: bool) -> dict[str, Any]:
    """The whole plot, for when traces come or go. Keeps the zoom that the user made."""
    data: list[dict[str, Any]] = []
    curves: list[list[float]] = []
    for line in lines:
        raw, bold = _curve(line, view)
        curves.append(bold["y"])
        data += [_ghost_trace(line, raw), _line_trace(line, bold, percent)]
    data += [_marks_trace(mark, *style) for mark, style in zip(marks, _MARK_STYLES, strict=True)]
    return {"data": data, "layout": _layout(view, percent, _clip(curves, view))}


def patch_figure(
    lines: Sequence[Line], marks: Sequence[Marks], view: View, held: Sequence[str], current: Sequence[str]
) -> Patch:
    """Only the x and y of those traces whose version is not the one held, and the limits of the automatic range."""
    patch = Patch()
    curves: list[list[float]] = []
    for index, line in enumerate(lines):
        raw, bold = _curve(line, view)
        curves.append(bold["y"])
        if held[index] != current[index]:
            for offset, curve in enumerate((raw, bold)):
                patch["data"][2 * index + offset]["x"] = curve["x"]
                patch["data"][2 * index + offset]["y"] = curve["y"]
    for index, mark in enumerate(marks):
        if held[len(lines) + index] != current[len(lines) + index]:
            trace = _marks_trace(mark, *_MARK_STYLES[index])
            target = patch["data"][2 * len(lines) + index]
            target["x"], target["y"], target["text"] = trace["x"], trace["y"], trace["text"]
            target["marker"]["color"] = trace["marker"]["color"]
    patch["layout"]["yaxis"]["autorangeoptions"] = _clip(curves, view)
    return patch


def _curve(line: Line, view: View) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """(the faint raw curve, the bold curve); without smoothing the bold one is the raw one and the faint one empty.

    A curve of FEW_POINTS or fewer is shown as it is.
    """
    series = thin(line.series)
    if view.smoothing <= 0 or len(series.ages) < FEW_POINTS:
        return {"x": [], "y": []}, {"x": series.ages, "y": _plain(series.values)}
    bold = smooth(series.values, view.smoothing)
    return {"x": series.ages, "y": _plain(series.values)}, {"x": series.ages, "y": _plain(bold)}


def _plain(values: list[float]) -> list[float | None]:
    """Values as JSON has them: six digits, None for what is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def _clip(curves: list[list[Any]], view: View) -> dict[str, float]:
    if not view.ignore_outliers or view.log:
        return {}
    limits = robust_range([[value for value in curve if value is not None] for curve in curves])
    return {} if limits is None else {"clipmin": limits[0], "clipmax": limits[1]}


def _has_points(line: Line) -> bool:
    """Whether single measurements are marked: a few evaluations are, training steps are not."""
    return line.split != "train" and 0 < len(line.series.ages) < FEW_POINTS


def _ghost_trace(line: Line, curve: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        **curve,
        "hoverinfo": "skip",
        "opacity": 0.28,
        "line": {"color": line.colour, "width": 1, "dash": "solid"},
        "showlegend": False,
    }


def _line_trace(line: Line, curve: dict[str, list[Any]], percent: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if _has_points(line) else "lines",
        **curve,
        "name": line.label,
        "line": {"color": line.colour, "width": 2, "dash": line.dash},
        "marker": {"size": 5},
        "showlegend": False,
        "hovertemplate": "%{y:.2%}" if percent else "%{y:.4~g}",
    }


def _marks_trace(marks: Marks, symbol: str, height: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [age for age, _, _ in marks.points],
        "y": [height] * len(marks.points),
        "yaxis": "y2",
        "showlegend": False,
        "text": [text for _, text, _ in marks.points],
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": False,
        "marker": {
            "symbol": symbol,
            "size": 9,
            "color": [colour for _, _, colour in marks.points],
            "line": {"width": 1, "color": "rgba(128,128,128,0.6)"},
        },
    }


def _layout(view: View, percent: bool, clip: dict[str, float]) -> dict[str, Any]:
    x: dict[str, Any] = {
        "automargin": True,
        "showline": False,
        "zeroline": False,
        "ticks": "",
        "nticks": 7,
        "spikecolor": "rgba(128,128,128,0.55)",
        "spikethickness": 1,
        "spikedash": "dot",
        "title": {"text": "samples seen", "standoff": 6, "font": {"size": 12}},
        "tickformat": "~s",
        "hoverformat": ",d",
    }
    y: dict[str, Any] = {
        "automargin": True,
        "zeroline": False,
        "nticks": 7,
        "type": "log" if view.log else "linear",
        "autorangeoptions": clip,
    }
    if percent:
        y["tickformat"] = ".1~%" if not view.log else ".2~%"
    if "x" in view.zoom:
        x["range"], x["autorange"] = view.zoom["x"], False
    if "y" in view.zoom and not view.log:
        y["range"], y["autorange"] = view.zoom["y"], False
    return {
        "uirevision": "keep",
        "margin": {"l": 8, "r": 14, "t": 8, "b": 8},
        "autosize": True,
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "x unified",
        "hoverdistance": 24,
        "dragmode": "zoom",
        "font": {"size": 12, "family": FONT},
        "hoverlabel": {"bgcolor": "#fff", "font": {"size": 12, "family": FONT}},
        "xaxis": x,
        "yaxis": y,
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }
