"""Find wrong labels by how samples train, leave them out while training goes on, and measure what that gives back.

    python -m graybox.examples.curation --root_directory my-runs --seeds 5

trains the digits on right labels, on labels of which a fifth is wrong, and on those again with the samples left out
that a query finds after a fifth of the steps. It prints what each cost and found, cleanlab's ranking beside ours, and
what it costs to do without easy and without hard samples. docs/curation.md says how to do the same by hand. As
`--experiment graybox/examples/curation.py` of the backend it can be tried: it pauses when it is time to look.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from graybox.commands import DiscardSamples
from graybox.examples import confident_learning, curation_tables
from graybox.examples.noisy_digits import (
    BATCH_SIZE,
    LEARNING_RATE,
    NoisyScans,
    network,
    noisy_digits,
    training_scans,
)
from graybox.experiment import Experiment
from graybox.store.query import check, parse, rows
from graybox.store.sample_table import SampleTable

DEFAULT_ROOT = "graybox-curation"
STEPS = 800
"""40 epochs: enough to learn all wrong labels by heart."""
DISCARD_AT = 160
"""After 8 epochs, when what the samples have in common is learnt and what single ones say is not yet."""
SHARE = 0.2
LEFT_OUT = (0.2, 0.75)
SEEDS = 5
WRONG = "split == 'train' and aum < 0"
"""Where the mean margin is below nothing, the network thought for most of the time that it is another class."""
SUSPICIOUS: Mapping[str, int] = {"aum": -1, "confidence_mean": -1, "loss_mean": 1, "forgetting": 1, "first_learnt": 1}
"""Columns that rank wrong labels: 1 where much of it is suspicious, -1 where little is."""

Scores = dict[str, NDArray[np.float64]]
Rows = Mapping[str, NDArray[np.int64]]


# -- asking and acting ---------------------------------------------------------------------------------


def get_exp(root_directory: str | Path = DEFAULT_ROOT) -> Experiment:
    """For the backend: a fifth of the labels is wrong. Pauses once when it is time to look for them."""
    scans = training_scans(root_directory, SHARE, 1)
    experiment = noisy_digits(root_directory, scans=scans, steps=STEPS, seed=1, name="digits, a fifth wrong")

    def pause() -> None:
        if experiment.loop().trainer.session.step == DISCARD_AT:
            experiment.set_is_training(False)

    experiment.set_train_loop_clbk_freq(DISCARD_AT)
    experiment.register_train_loop_callback(pause)
    return experiment


def find(experiment: Experiment, query: str, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """The samples that a query finds now, int64 [n] by split, in its order. seed: of what it draws at random. Raises
    QueryError for a query that is none."""
    samples = experiment.loop().trainer.session.stores.samples
    table = SampleTable(list(samples.splits.values()), experiment.class_names)
    asked = parse(query)
    check(asked, table)
    found = table.selection(rows(asked, table, seed=seed))
    return {name: found.row[found.split == number] for number, name in enumerate(found.splits)}


def discard(experiment: Experiment, found: Rows) -> int:
    """Leave samples out from the next batch on, as one entry of the journal that can be undone; how many."""
    count: int = experiment.loop().command(DiscardSamples(rows=found)).value
    return count


def suspicion(experiment: Experiment) -> Scores:
    """By each column of SUSPICIOUS, how likely each training label is wrong: float64 [n], high to look at first."""
    columns = experiment.datasets["train"].columns
    scores = {name: sign * columns.column(name).astype(np.float64) for name, sign in SUSPICIOUS.items()}
    scores["first_learnt"][columns.column("first_learnt") < 0] = np.inf  # never yet
    return {name: np.nan_to_num(score, posinf=float(np.finfo(np.float32).max)) for name, score in scores.items()}


# -- runs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A run at its end. accuracy: on scans that were not trained on, labelled rightly, in [0, 1]. suspicion: see there,
    by the steps after which it was asked. discarded: bool [n]. found: int64 rows of the training scans, by query."""

    accuracy: float
    scans: NoisyScans
    suspicion: dict[int, Scores]
    discarded: NDArray[np.bool_]
    found: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def train(
    root_directory: str | Path,
    *,
    seed: int,
    share: float = 0.0,
    steps: int = STEPS,
    look_at: int = DISCARD_AT,
    query: str | None = None,
    without: NDArray[np.int64] | None = None,
    ask: Sequence[str] = (),
) -> Trained:
    """One run from the beginning. share: of wrong labels. query: what is discarded after `look_at` steps, None nothing.
    without: rows of the training scans that are discarded before the first step. ask: queries for the end."""
    scans = training_scans(root_directory, share, seed)
    experiment = noisy_digits(root_directory, scans=scans, steps=steps, seed=seed, name=f"digits, {share:.0%} wrong")
    experiment.skip_loading = True
    known: dict[int, Scores] = {}
    try:
        if without is not None:
            discard(experiment, {"train": without})
        experiment.train_n_steps(look_at)
        known[look_at] = suspicion(experiment)
        if query is not None:
            discard(experiment, find(experiment, query))
        experiment.train_n_steps(steps - look_at)
        known[steps] = suspicion(experiment)
        percent = experiment.eval_full()[1]
        return Trained(
            (percent or 0.0) / 100.0,
            scans,
            known,
            experiment.datasets["train"].columns.discarded.copy(),
            {asked: find(experiment, asked, seed)["train"] for asked in ask},
        )
    finally:
        experiment.close()


@dataclass(frozen=True)
class Curation:
    """The same seed on right labels, on labels of which some are wrong, and on those with a query's finds left out.
    peer: probabilities [n, classes] of cleanlab's networks, by steps; empty where it is not installed."""

    clean: Trained
    noisy: Trained
    curated: Trained
    peer: dict[int, NDArray[np.float64]]

    @property
    def lost(self) -> float:
        """The accuracy that the wrong labels cost."""
        return self.clean.accuracy - self.noisy.accuracy

    @property
    def given_back(self) -> float:
        """The share of the accuracy that the wrong labels cost which leaving samples out gave back."""
        return (self.curated.accuracy - self.noisy.accuracy) / self.lost if self.lost else math.nan

    def average_precisions(self, steps: int) -> dict[str, float]:
        """Of each ranking after so many steps; cleanlab's as "cleanlab METHOD"."""
        scans = self.noisy.scans
        scores = dict(self.noisy.suspicion[steps])
        if steps in self.peer:
            peer = confident_learning.suspicion(np.array(scans.targets), self.peer[steps])
            scores |= {f"cleanlab {method}": score for method, score in peer.items()}
        return {name: float(average_precision_score(scans.wrong, score)) for name, score in scores.items()}

    def suspects(self, steps: int) -> dict[str, NDArray[np.bool_]]:
        """Whose labels are taken for wrong after so many steps, bool [n], by whom."""
        found = {"aum < 0": self.noisy.suspicion[steps]["aum"] > 0}
        if steps in self.peer:
            found["cleanlab"] = confident_learning.issues(np.array(self.noisy.scans.targets), self.peer[steps])
        return found


def curate(
    root_directory: str | Path, *, seed: int, steps: int = STEPS, look_at: int = DISCARD_AT, beside: bool = True
) -> Curation:
    """All runs of one seed. beside: train cleanlab's networks too, where it is installed."""
    run = functools.partial(train, root_directory, seed=seed, steps=steps, look_at=look_at)
    noisy = run(share=SHARE)
    peer = peer_of(noisy.scans, (look_at, steps), seed) if beside and confident_learning.installed() else {}
    return Curation(run(), noisy, run(share=SHARE, query=WRONG), peer)


def peer_of(scans: NoisyScans, steps: Sequence[int], seed: int) -> dict[int, NDArray[np.float64]]:
    """What cleanlab needs to know of these scans: probabilities [n, classes] after each number of steps, of the same
    network, trained by the same optimizer for as many steps on each of the folds."""
    return confident_learning.out_of_fold(
        torch.stack([image for image, _ in scans]),
        np.array(scans.targets, dtype=np.int64),
        network,
        steps=steps,
        seed=seed,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
    )


# -- easy and hard samples -----------------------------------------------------------------------------

SUBSETS: Mapping[str, str] = {
    "the easiest": "split == 'train' sortby confidence_mean desc, first_learnt limit {count}",
    "as many at random": "split == 'train' sample {count}",
    "the hardest": "split == 'train' sortby confidence_mean limit {count}",
}


def left_out(
    root_directory: str | Path, *, seed: int, shares: Sequence[float], steps: int = STEPS
) -> dict[tuple[str, float], float]:
    """Accuracy of a run that begins without some of the scans, by what SUBSETS calls them and their share; what is easy
    and hard is what a run on all of them found. ("nothing", 0.0): that run's. All labels are right."""
    scans = training_scans(root_directory, 0.0, seed)
    wanted = {
        (name, share): query.format(count=round(share * len(scans)))
        for share in shares
        for name, query in SUBSETS.items()
    }
    run = functools.partial(train, root_directory, seed=seed, steps=steps, look_at=0)
    whole = run(ask=tuple(wanted.values()))
    accuracy = {("nothing", 0.0): whole.accuracy}
    for key, query in wanted.items():
        accuracy[key] = run(without=whole.found[query]).accuracy
    return accuracy


# -- the command line ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m graybox.examples.curation", description=__doc__)
    parser.add_argument("--root_directory", default=DEFAULT_ROOT, help="where the digits and all runs are kept")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of each run ({STEPS})")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how often everything is done ({SEEDS})")
    given = parser.parse_args(arguments)
    if given.steps < 5 or given.seeds < 1:
        parser.error("it takes 5 steps and 1 seed at least")
    look_at = given.steps * DISCARD_AT // STEPS
    root, seeds = given.root_directory, range(1, given.seeds + 1)
    curation_tables.print_heading(SHARE, look_at, given.steps)
    done: dict[int, Curation] = {}
    for seed in seeds:
        done[seed] = curate(root, seed=seed, steps=given.steps, look_at=look_at)
        curation_tables.print_curation(seed, done[seed])
    curation_tables.print_found(list(done.values()), (look_at, given.steps))
    without = [left_out(root, seed=seed, shares=LEFT_OUT, steps=given.steps) for seed in seeds]
    curation_tables.print_left_out(without)


if __name__ == "__main__":
    main()
