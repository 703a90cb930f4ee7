"""How often samples are drawn, and which part of them stays in use: edits resolved to samples and numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graybox.checks import in_range
from graybox.commands import KeepRatio, KeepShare, RebalanceClasses, WeighSamples
from graybox.epoch_order import Weights, balanced, checked_weight
from graybox.errors import Invalid, Refused
from graybox.randomness import hashes, mix, purpose
from graybox.store.sample_columns import Rows, SplitColumns

TRAIN = "train"
"""Only samples of this split are drawn."""
RowsOfSplits = Mapping[str, Rows]


def weights_for(
    command: WeighSamples | RebalanceClasses, chosen: RowsOfSplits, columns: SplitColumns
) -> tuple[Rows, Weights]:
    """(training samples, ascending; the weight of each). chosen: the samples that the command names, by split; none:
    all. Raises Invalid or Refused."""
    if command.samples and any(split != TRAIN for split, _ in command.samples):
        raise Refused(f"only samples of {TRAIN!r} are drawn, so that only they have a weight")
    if chosen and TRAIN not in chosen:
        raise Refused(f"none of these samples is of {TRAIN!r}; only those are drawn, so that only they have a weight")
    if isinstance(command, WeighSamples):
        if not chosen:
            raise Invalid("no sample was named")
        weight = checked_weight(command.weight, columns.count)
        rows = chosen[TRAIN]
        weights = np.full(len(rows), weight, dtype=np.float32)
    else:
        rows, weights = _rebalanced(command.how, chosen.get(TRAIN), columns)
    after = columns.notes.weights().copy()
    after[rows] = weights
    check_drawn(after, columns.discarded)
    return rows, weights


def _rebalanced(how: str, rows: Rows | None, columns: SplitColumns) -> tuple[Rows, Weights]:
    if how == "none":
        known = np.arange(columns.count) if rows is None else rows
        known = known[columns.notes.weights(known) != 1]
        return known, np.ones(len(known), dtype=np.float32)
    in_use = np.arange(columns.count) if rows is None else rows
    in_use = in_use[~columns.discarded[in_use]]
    checked_weight(1.0, columns.count)
    return in_use, balanced(columns.truth(in_use), how)


def check_drawn(weights: Weights, discarded: np.ndarray) -> None:
    """Raises Refused where too little is left to train on."""
    kept = weights[~discarded]
    drawn = float(kept.sum(dtype=np.float64))
    if drawn < min(2, len(kept)):
        raise Refused(f"this would draw {drawn:.3g} samples in an epoch; leave at least 2")


def left_out(
    command: KeepShare | KeepRatio, chosen: RowsOfSplits, splits: Mapping[str, SplitColumns], seed: int
) -> dict[str, Rows]:
    """The samples to discard, by split, each ascending. chosen: those that the command names. seed: of the choice."""
    found: dict[str, Rows] = {}
    if isinstance(command, KeepShare):
        share = in_range("share", command.share, 0.0, 1.0, exclusive=True)
    else:
        ratio = in_range("ratio", command.ratio, 0.0, float(1 << 40))
    for split, rows in chosen.items():
        discarded = splits[split].discarded
        candidates = rows[~discarded[rows]]
        if isinstance(command, KeepShare):
            keep = int(np.ceil(share * len(candidates)))
        else:
            others = int(np.count_nonzero(~discarded)) - len(candidates)
            keep = min(int(ratio * others), len(candidates))
        lots = hashes(mix(seed, purpose("kept share")), candidates)
        found[split] = np.sort(candidates[np.argsort(lots, kind="stable")[keep:]])
    if not sum(map(len, found.values())):
        raise Refused("as many of these samples as that are in use already; nothing to discard")
    return {split: rows for split, rows in found.items() if len(rows)}
