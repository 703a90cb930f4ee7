"""What the curation recipe measured, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graybox.examples.curation import Curation

_RUNS = (4, 12, 12, 8, 10, 9, 16, 14)


def print_heading(share: float, look_at: int, steps: int) -> None:
    """The columns of `print_curation`."""
    print(f"{share:.0%} of the labels wrong; `aum < 0` discarded after {look_at} of {steps} steps\n")
    names = (
        "seed",
        "right labels",
        "wrong labels",
        "curated",
        "given back",
        "discarded",
        "wrong among them",
        "of all wrong",
    )
    print(_line(names, _RUNS), flush=True)


def print_curation(seed: int, done: Curation) -> None:
    """One row: validation accuracies, what came back, and what was discarded."""
    discarded, wrong = done.curated.discarded, done.curated.scans.wrong
    accuracies = [f"{run.accuracy:.2%}" for run in (done.clean, done.noisy, done.curated)]
    hits = int((discarded & wrong).sum())
    counts = (str(int(discarded.sum())), _share(hits, int(discarded.sum())), _share(hits, int(wrong.sum())))
    print(_line((str(seed), *accuracies, f"{done.given_back:.0%}", *counts), _RUNS), flush=True)


def print_found(done: Sequence[Curation], steps: Sequence[int]) -> None:
    """How well each ranking puts wrong labels first, and what is taken for wrong, on wrong labels after these steps."""
    widths = (38, *[22] * len(steps))
    print("\nAverage precision: mean over the seeds (lowest)")
    print(_line(("ranking", *(f"after {number} steps" for number in steps)), widths))
    found = [[one.average_precisions(number) for one in done] for number in steps]
    for name in found[0][0]:
        cells = [[scores[name] for scores in column] for column in found]
        print(_line((name, *(f"{np.mean(cell):.4f} ({min(cell):.4f})" for cell in cells)), widths))
    if not any(one.peer for one in done):
        print("cleanlab is not installed; with it (pip install cleanlab), its rankings stand here too")
    print("\nTaken for wrong: share that is wrong, share of all wrong ones, means over the seeds")
    for name in done[0].suspects(steps[0]):
        told = []
        for number in steps:
            pairs = [(one.suspects(number)[name], one.noisy.scans.wrong) for one in done]
            hits = [(int((taken & wrong).sum()), int(taken.sum()), int(wrong.sum())) for taken, wrong in pairs]
            precision = np.mean([hit / max(taken, 1) for hit, taken, _ in hits])
            recall = np.mean([hit / max(wrong, 1) for hit, _, wrong in hits])
            told.append(f"{precision:.1%}, {recall:.1%}")
        print(_line((name, *told), widths))


def print_left_out(done: Sequence[Mapping[tuple[str, float], float]]) -> None:
    """What it costs to begin without some of the scans. One mapping per seed, see `left_out`."""
    whole = [accuracies["nothing", 0.0] for accuracies in done]
    print(f"\nAll labels right; what is left out before the first step, mean accuracy over {len(done)} seed(s)")
    widths = (30, 10, 22)
    print(_line(("nothing", f"{np.mean(whole):.2%}", ""), widths))
    for name, share in done[0]:
        if share:
            points = [100.0 * (one[name, share] - one["nothing", 0.0]) for one in done]
            accuracy = np.mean([one[name, share] for one in done])
            told = f"{np.mean(points):+.2f} points"
            print(_line((f"{name}, {share:.0%}", f"{accuracy:.2%}", told), widths))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()
