"""A share of the labels is wrong, exactly and evenly; all else is as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.examples.noisy_digits import network, noisy_digits, training_scans, with_wrong_labels


@given(
    st.integers(2, 20).flatmap(
        lambda classes: st.tuples(st.just(classes), st.lists(st.integers(0, classes - 1), max_size=50))
    ),
    st.floats(0.0, 1.0),
    st.integers(0, 1_000),
)
def test_so_many_labels_are_wrong(drawn: tuple[int, list[int]], share: float, seed: int) -> None:
    classes, right = drawn[0], np.array(drawn[1], dtype=np.int64)
    before = right.copy()
    noisy, wrong = with_wrong_labels(right, classes, share, seed)
    assert np.array_equal(right, before)
    assert wrong.sum() == round(share * len(right))
    assert np.array_equal(noisy != right, wrong)
    assert ((noisy >= 0) & (noisy < classes)).all()
    again, _ = with_wrong_labels(right, classes, share, seed)
    assert np.array_equal(noisy, again)


def test_every_other_class_is_as_likely() -> None:
    right = np.repeat(np.arange(5), 20_000)
    noisy, wrong = with_wrong_labels(right, 5, 0.5, 3)
    counts = np.zeros((5, 5))
    np.add.at(counts, (right[wrong], noisy[wrong]), 1)
    assert (np.diag(counts) == 0).all()
    # Of some 10,000 in each row a quarter each: five deviations of a binomial count.
    others = counts[~np.eye(5, dtype=bool)]
    assert np.abs(others - 2_500).max() < 5 * np.sqrt(10_000 * 0.25 * 0.75)


@pytest.mark.parametrize(("classes", "share", "said"), [(3, 1.5, "0 to 1; it is 1.5"), (1, 0.2, "two classes")])
def test_what_cannot_be_is_refused(classes: int, share: float, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        with_wrong_labels(np.zeros(4, dtype=np.int64), classes, share, 0)


def test_the_scans_stay_and_the_labels_differ(root: Path) -> None:
    right, noisy = training_scans(root, 0.0, 1), training_scans(root, 0.2, 1)
    assert len(right) == 1_258 and noisy.wrong.sum() == 252 and not right.wrong.any()
    told = np.array([label for _, label in noisy])
    assert np.array_equal(told != noisy.true_labels, noisy.wrong)
    assert np.array_equal(told, noisy.targets) and np.array_equal(right.targets, noisy.true_labels)
    assert torch.equal(torch.stack([image for image, _ in right]), torch.stack([image for image, _ in noisy]))
    assert not np.array_equal(noisy.wrong, training_scans(root, 0.2, 2).wrong)


def test_the_experiment_trains_on_what_it_is_told_and_validates_on_what_is_right(root: Path) -> None:
    scans = training_scans(root, 0.2, 1)
    experiment = noisy_digits(root, scans=scans, steps=1, seed=1, name="digits")
    assert np.array_equal(experiment.datasets["train"].labels(), scans.targets)
    names = experiment.datasets["val"].dataset.samples
    assert len(names) == 539 and all(Path(path).parent.name == str(label) for path, label in names)
    assert sum(parameter.numel() for parameter in network().parameters()) == 72_138
