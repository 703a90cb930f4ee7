"""Gathers what the metrics page shows from the hub: which runs, which curves, which marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graybox.dashboard.client import CallFailed
from graybox.dashboard.colours import branches_of, line_dash, run_colours
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.metrics.figure import Line, Marks, View
from graybox.dashboard.series import RunMetrics, Series, SeriesKey, smooth, thin
from graybox.dashboard.view import STATE_WORDS, clock, count, metric, run_title
from graybox.proto import experiment_service_pb2 as pb

SHOWN_AT_FIRST = 5
_QUIET = {
    "pause", "resume", "checkpoint", "checkpoint_save", "save_checkpoint", "plot_note", "evaluation_start",
    "evaluation_end",
}  # fmt: skip
"""Journal entries that are no intervention in the model, the data or the hyper-parameters."""


@dataclass(frozen=True)
class Collected:
    """Everything one poll of the page needs."""

    runs: list[pb.RunInfo]
    shown: set[tuple[str, int]]
    colours: dict[tuple[str, int], str]
    curves: dict[str, RunMetrics]
    marks: tuple[Marks, Marks]

    def metric_names(self) -> list[str]:
        """All metrics of the runs shown: loss and accuracy first, the others by name."""
        names = {key.metric for run in self.curves.values() for key in run.series}
        return sorted(names, key=lambda name: ({"loss": 0, "accuracy": 1}.get(name, 2), name))


async def collect(hub: Hub, choice: Mapping[str, bool]) -> Collected:
    """Read the runs, and of those ticked the curves and marks. Raises CallFailed when not even the runs can be read;
    a run that cannot be read is left out."""
    runs = (await hub.runs()).value
    colours = run_colours(runs)
    shown = _shown(hub, runs, choice)
    curves: dict[str, RunMetrics] = {}
    checkpoints: list[tuple[int, str, str]] = []
    interventions: list[tuple[int, str, str]] = []
    for run in runs:
        branches = {branch for run_id, branch in shown if run_id == run.run_id}
        if not branches:
            continue
        try:
            curves[run.run_id] = await hub.metrics.read(run.run_id, live=run.run_id == hub.live_run)
            saved = (await hub.checkpoints(run.run_id)).value
            journal = (await hub.journal(run.run_id)).value
        except CallFailed:
            continue
        for point in saved:
            if point.branch in branches:
                text = f"checkpoint{f' “{point.name}”' if point.name else ''} at step {count(point.step)}"
                checkpoints.append((point.age, text, colours[run.run_id, point.branch]))
        for entry in journal:
            if entry.branch in branches and entry.kind not in _QUIET and entry.outcome != "failed":
                interventions.append((entry.age, entry.summary, colours[run.run_id, entry.branch]))
    marks = (Marks(tuple(checkpoints[-200:])), Marks(tuple(interventions[-200:])))
    return Collected(runs, shown, colours, curves, marks)


def _shown(hub: Hub, runs: list[pb.RunInfo], choice: Mapping[str, bool]) -> set[tuple[str, int]]:
    pairs = [(run.run_id, branch) for run in runs for branch in branches_of(run)]
    newest = set(pairs[-SHOWN_AT_FIRST:]) | {pair for pair in pairs if pair[0] == hub.live_run}
    return {pair for pair in pairs if choice.get(f"{pair[0]}/{pair[1]}", pair in newest)}


async def lines_of(hub: Hub, collected: Collected, name: str, view: View) -> list[Line]:
    """The curves of one plot, in a stable order; zoomed in, as fine as the backend has them."""
    lines: list[Line] = []
    for run in collected.runs:
        held = collected.curves.get(run.run_id)
        if held is None:
            continue
        found: Mapping[SeriesKey, Series] = held.series
        if "x" in view.zoom:
            try:
                found = await hub.metrics.window(run.run_id, name, *view.zoom["x"])
            except CallFailed:
                found = held.series
        keys = sorted(
            (key for key in held.series if key.metric == name and (run.run_id, key.branch) in collected.shown),
            key=lambda key: (key.branch, key.split != "train", key.split),
        )
        for key in keys:
            lines.append(
                Line(
                    run_id=run.run_id,
                    branch=key.branch,
                    split=key.split,
                    label=_label(run, key),
                    colour=collected.colours[run.run_id, key.branch],
                    dash=line_dash(key.split),
                    series=found.get(key, Series()),
                    version=f"{run.run_id}:{held.version}",
                )
            )
    return lines


def _label(run: pb.RunInfo, key: SeriesKey) -> str:
    branch = f" · branch {key.branch}" if len(branches_of(run)) > 1 else ""
    name = run.experiment_name or run.run_id
    return f"{name}{branch} · {key.split}" if key.split else f"{name}{branch}"


def run_rows(hub: Hub, collected: Collected) -> list[dict[str, Any]]:
    """The list of runs, newest first; one row per run and branch."""
    rows: list[dict[str, Any]] = []
    for run in reversed(collected.runs):
        live = hub.status is not None and run.run_id == hub.live_run
        state = STATE_WORDS.get(hub.status.state if live and hub.status else run.state, "ended")
        branches = branches_of(run)
        for branch in reversed(branches):
            best = next((k for k in ("val/accuracy", "test/accuracy", "train/accuracy") if k in run.metrics), "")
            facts = [f"step {count(run.step)}"] if branch == branches[-1] else ["left behind"]
            if best and branch == branches[-1]:
                facts.append(metric(best, run.metrics[best]))
            facts.append(clock(run.created_ms))
            rows.append(
                {
                    "key": f"{run.run_id}/{branch}",
                    "id": f"run-toggle-{run.run_id}-{branch}",
                    "name": (run.experiment_name or run.run_id) + (f" · branch {branch}" if len(branches) > 1 else ""),
                    "facts": " · ".join(facts),
                    "state": state if branch == branches[-1] else "",
                    "colour": collected.colours[run.run_id, branch],
                    "title": run_title(run),
                    "shown": (run.run_id, branch) in collected.shown,
                }
            )
    return rows


def summary_cards(hub: Hub, collected: Collected) -> list[dict[str, Any]]:
    """The newest values of the run in focus: at most four cards with a small curve each."""
    run_id = hub.live_run if hub.live_run in collected.curves else next(reversed(collected.curves), "")
    held = collected.curves.get(run_id)
    if held is None or not held.series:
        return []
    newest: dict[tuple[str, str], SeriesKey] = {}
    for key in sorted(held.series, key=lambda key: key.branch):
        newest[key.split, key.metric] = key
    order = sorted(
        newest.values(),
        key=lambda key: ({"loss": 0, "accuracy": 1}.get(key.metric, 2), key.split != "train", key.split, key.metric),
    )
    return [_card(key, held.series[key]) for key in order[:4]]


def _card(key: SeriesKey, series: Series) -> dict[str, Any]:
    values = [value for value in smooth(thin(series, 400).values, 0.8) if value - value == 0]
    ratio = 0.0
    part = max(len(values) // 8, 1)
    if len(values) >= 16:
        before, after = sum(values[-2 * part : -part]) / part, sum(values[-part:]) / part
        ratio = (after - before) / abs(before) if before else 0.0
    better = ratio < 0 if "loss" in key.metric else ratio > 0
    steady = abs(ratio) < 0.005
    label = f"{key.split} {key.metric}".strip().replace("_", " ").replace("val ", "validation ")
    latest = values[-1] if values else series.values[-1]
    return {
        "label": label[:1].upper() + label[1:],
        "value": metric(key.metric, latest),
        "change": "" if len(values) < 16 else "steady" if steady else f"{ratio * 100:+.1f} %".replace("-", "−"),
        "mood": "even" if steady else "good" if better else "bad",
        "spark": [round(value, 6) for value in values[:: max(len(values) // 60, 1)]],
    }
