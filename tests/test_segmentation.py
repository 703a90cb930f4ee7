"""A class for every pixel: losses are torch's, scores scikit-learn's, torchvision's networks train as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision.models.segmentation import fcn_resnet50, lraspp_mobilenet_v3_large

from graybox.errors import Invalid
from graybox.experiment import Experiment
from graybox.launch import launch
from graybox.segmentation import IGNORED, Segmentation, pixel_losses, pixel_scores
from graybox.store.class_sets import unpacked
from tests.small_experiments import tick_until


@st.composite
def answers(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [batch, classes, height, width], target), with pixels that are ignored, samples of nothing else too."""
    batch, classes, high, wide = (draw(st.integers(1, most)) for most in (3, 4, 4, 3))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    target = torch.randint(0, classes, (batch, high, wide), generator=numbers)
    target[torch.rand(target.shape, generator=numbers) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = IGNORED
    return torch.randn(batch, classes, high, wide, generator=numbers), target


@settings(max_examples=60, deadline=None)
@given(answers())
def test_losses_and_scores(given_: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = given_
    logits.requires_grad_()
    result = Segmentation().evaluate({"out": logits}, target)
    counted = target != IGNORED
    oracle = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / max(int(counted.sum()), 1)
    torch.testing.assert_close(result.loss, oracle)
    (gradient,) = torch.autograd.grad(result.loss, logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(oracle, logits)[0])
    found = logits.argmax(1)
    assert result.sets is not None
    for number in range(len(logits)):
        here = counted[number]
        mine = [float(each[number]) for each in (result.sample_losses, *result.scores.values())]
        assert list(result.scores) == ["pixel_accuracy", "iou"]
        if not here.any():
            assert np.isnan(mine).all() and not result.sets[number].any()
            continue
        wanted, guessed = target[number][here].numpy(), found[number][here].numpy()
        alone = logits.detach()[number : number + 1]
        loss = F.cross_entropy(alone, target[number : number + 1], ignore_index=IGNORED)
        present = np.union1d(wanted, guessed)
        iou = jaccard_score(wanted, guessed, average="macro", labels=present)
        assert mine == pytest.approx([float(loss), accuracy_score(wanted, guessed), iou], rel=1e-5, abs=1e-6)
        assert np.flatnonzero(result.sets[number]).tolist() == np.unique(guessed).tolist()


def test_a_batch_that_is_ignored_whole_changes_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss, _ = pixel_losses(logits, torch.full((2, 4, 4), IGNORED))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_an_auxiliary_answer_counts_half() -> None:
    logits, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    target = torch.randint(0, 3, (2, 1, 4, 4))
    found = Segmentation().evaluate({"out": logits, "aux": other}, target)
    plain = F.cross_entropy(logits, target[:, 0]) + 0.5 * F.cross_entropy(other, target[:, 0])
    torch.testing.assert_close(found.loss, plain)
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORED)
    torch.testing.assert_close(
        Segmentation(criterion).evaluate({"out": logits, "aux": other}, target).loss,
        F.cross_entropy(logits, target[:, 0]),
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.zeros(2, 4, 4), r"whole numbers \[2, 4, 4\], not float32 \[2, 4, 4\].*PILToTensor"),
        (torch.zeros(2, 5, 4, dtype=torch.int64), r"not int64 \[2, 5, 4\]"),
        ([torch.zeros(4, 4)] * 2, "not list"),
    ],
)
def test_wrong_targets_are_named(target: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        Segmentation().evaluate(torch.zeros(2, 3, 4, 4), target)
    with pytest.raises(Invalid, match=r"answers \[batch, classes, height, width\], this one \[2, 3\]"):
        Segmentation().prepare(torch.zeros(2, 3))


def squares(count: int) -> TensorDataset:
    """A bright square on noise, class 1; 2 where it is dark; some pixels are ignored. Sample 0 has no square."""
    numbers = torch.Generator().manual_seed(count)
    pictures = torch.rand(count, 3, 32, 32, generator=numbers) * 0.3 + 0.3
    masks = torch.zeros(count, 32, 32, dtype=torch.int64)
    for index in range(1, count):
        top, left = torch.randint(0, 20, (2,), generator=numbers).tolist()
        kind = 1 + index % 2
        pictures[index, :, top : top + 12, left : left + 12] += 0.4 if kind == 1 else -0.3
        masks[index, top : top + 12, left : left + 12] = kind
        masks[index, top, :] = IGNORED
    return TensorDataset(pictures, masks)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3), id="lraspp"
        ),
        pytest.param(
            lambda: fcn_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=True),
            id="fcn",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_network_of_torchvision_trains_as_it_is(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    data = squares(8)
    experiment = Experiment(
        model=make(), optimizer_class=optim.Adam, train_dataset=data, eval_dataset=data, task="segmentation",
        batch_size=4, learning_rate=1e-3, seed=1, full_eval_frequency=4, checkpoint_frequency=0,
    )  # fmt: skip
    training = launch(experiment, root_directory=tmp_path)
    try:
        session = training.trainer.session
        tick_until(training, lambda: session.last_evaluation_step == 4)
        val = training.stores.samples.splits["val"].targets
        bits, found = val.column("classes"), val.column("predicted_classes")
        assert bits is not None and found is not None and val.kind == "mask"
        assert np.flatnonzero(unpacked(bits)[0]).tolist() == [0]
        assert all(np.flatnonzero(unpacked(bits)[row]).tolist() == [0, 1 + row % 2] for row in range(1, 8))
        with torch.no_grad():
            logits = session.network.eval()(data.tensors[0])["out"]
        sets, scores = pixel_scores(logits, data.tensors[1])
        np.testing.assert_array_equal(unpacked(found)[:, :3], sets.numpy())
        for name, expected in scores.items():
            column = val.column(name)
            assert column is not None
            np.testing.assert_allclose(column, expected.numpy(), rtol=1e-4)
        _, losses = pixel_losses(logits, data.tensors[1])
        np.testing.assert_allclose(training.stores.samples.splits["val"].loss, losses.numpy(), rtol=1e-3)
        latest = training.stores.metrics.latest()
        assert latest["val", "iou"].value == pytest.approx(float(scores["iou"].double().mean()), rel=1e-4)
        assert ("train", "pixel_accuracy") in latest
    finally:
        training.close()
