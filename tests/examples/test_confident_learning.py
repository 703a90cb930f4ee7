"""The peer is the real one, and gets what it needs: probabilities of networks that never saw the sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from graybox.examples.confident_learning import METHODS, installed, issues, out_of_fold, suspicion


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 4))


def noise(count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Nothing to learn but by heart."""
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(0)), np.arange(count) % 4


def test_it_is_there() -> None:
    assert installed()


def test_no_network_saw_the_sample_that_it_judges() -> None:
    inputs, labels = noise(120)
    options = {"steps": (300,), "seed": 1, "batch_size": 32, "learning_rate": 0.01}
    found = out_of_fold(inputs, labels, network, **options)[300]
    assert found.shape == (120, 4) and np.allclose(found.sum(axis=1), 1.0)
    assert (found.argmax(axis=1) == labels).mean() < 0.45
    # Of most samples a twin lies in another fold: they were seen, and are known by heart.
    twice = out_of_fold(inputs.repeat(2, 1), np.tile(labels, 2), network, folds=6, **options)[300]
    assert (twice.argmax(axis=1) == np.tile(labels, 2)).mean() > 0.75


def test_looking_earlier_changes_nothing() -> None:
    inputs, labels = noise(40)
    options = {"seed": 3, "batch_size": 16, "learning_rate": 0.01}
    both = out_of_fold(inputs, labels, network, steps=(4, 9), **options)
    for steps in (4, 9):
        assert np.array_equal(both[steps], out_of_fold(inputs, labels, network, steps=(steps,), **options)[steps])


def test_the_scores_are_what_their_names_say() -> None:
    draw = np.random.default_rng(0)
    probabilities, labels = draw.dirichlet(np.ones(4), 200), draw.integers(0, 4, 200)
    own = probabilities[np.arange(200), labels]
    others = probabilities.copy()
    others[np.arange(200), labels] = -1.0
    scores = suspicion(labels, probabilities)
    assert tuple(scores) == METHODS
    np.testing.assert_allclose(scores["self_confidence"], -own)
    np.testing.assert_allclose(scores["normalized_margin"], -(own - others.max(axis=1) + 1.0) / 2.0)


def test_what_all_networks_contradict_is_an_issue() -> None:
    right = np.arange(200) % 4
    probabilities = np.full((200, 4), 0.02)
    probabilities[np.arange(200), right] = 0.94
    wrong = np.arange(200) % 10 == 0
    assert np.array_equal(issues(np.where(wrong, (right + 1) % 4, right), probabilities), wrong)
