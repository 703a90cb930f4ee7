"""One colour per run and branch, readable on light and dark alike."""

from __future__ import annotations

from collections.abc import Iterable

from graybox.proto import experiment_service_pb2 as pb

PALETTE = (
    "#8b5cf6",
    "#0ea5b7",
    "#f08c00",
    "#e8457a",
    "#2f9e44",
    "#3b82f6",
    "#c026d3",
    "#74a50a",
    "#e8590c",
    "#64748b",
)


def run_colours(runs: Iterable[pb.RunInfo]) -> dict[tuple[str, int], str]:
    """A colour for every (run id, branch). `runs` come oldest first, so that a new one changes no other's colour."""
    colours: dict[tuple[str, int], str] = {}
    index = 0
    for run in runs:
        for branch in branches_of(run):
            colours[run.run_id, branch] = PALETTE[index % len(PALETTE)]
            index += 1
    return colours


def branches_of(run: pb.RunInfo) -> list[int]:
    """The branches of a run; a run that names none has its first."""
    return sorted({info.branch for info in run.branches} | ({0} if not run.branches else set()))


def line_dash(split: str) -> str:
    """How a split's line is drawn: training is solid, what is measured on other data is not."""
    return {"train": "solid", "": "solid", "test": "dot"}.get(split, "dash")
