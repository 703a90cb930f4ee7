"""The peer of the curation recipe: cleanlab's confident learning on the probabilities of networks that never saw a
sample in training (Northcutt, Jiang and Chuang, 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels").

cleanlab is a package for development: where it is not installed, `installed` says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import nn, optim
from torch.nn import functional as F

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FOLDS = 5


def installed() -> bool:
    """Whether cleanlab is."""
    return importlib.util.find_spec("cleanlab") is not None


def out_of_fold(
    inputs: torch.Tensor,
    labels: NDArray[np.int64],
    network: Callable[[], nn.Module],
    *,
    steps: Sequence[int],
    seed: int,
    batch_size: int,
    learning_rate: float,
    folds: int = FOLDS,
) -> dict[int, NDArray[np.float64]]:
    """For each number of steps, probabilities [n, classes]: each sample's from a network that was trained for so many
    steps of Adam on the other folds.

    inputs: [n, ...]. labels: int64 [n], 0 to classes - 1, each class at least `folds` times.
    """
    targets = torch.from_numpy(labels)
    found = {number: np.full((len(labels), int(labels.max()) + 1), np.nan) for number in steps}
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (rest, held) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        order = torch.Generator().manual_seed(seed * folds + fold)
        torch.manual_seed(seed * folds + fold)
        model = network()
        optimizer = optim.Adam(model.parameters(), lr=learning_rate)
        waiting = torch.empty(0, dtype=torch.int64)
        for step in range(1, max(steps) + 1):
            if not len(waiting):
                waiting = torch.from_numpy(rest)[torch.randperm(len(rest), generator=order)]
            rows, waiting = waiting[:batch_size], waiting[batch_size:]
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            if step in found:
                found[step][held] = _probabilities(model, inputs[torch.from_numpy(held)])
    return found


def _probabilities(model: nn.Module, inputs: torch.Tensor) -> NDArray[np.float64]:
    """[n, classes], in evaluation mode; the model is in training mode afterwards."""
    model.eval()
    with torch.no_grad():
        answered: NDArray[np.float64] = F.softmax(model(inputs).double(), dim=1).numpy()
    model.train()
    return answered


def suspicion(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """By each method of cleanlab's, how likely each label is wrong: [n], high for those to look at first."""
    from cleanlab.rank import get_label_quality_scores

    return {
        method: -np.asarray(get_label_quality_scores(labels, probabilities, method=method), dtype=np.float64)
        for method in METHODS
    }


def issues(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which labels cleanlab says are wrong, bool [n]."""
    from cleanlab.filter import find_label_issues

    return np.asarray(find_label_issues(labels, probabilities), dtype=bool)
