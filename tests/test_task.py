"""Tasks: what the network answers is recognised, losses per sample agree with torch's, wrong targets are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graybox.errors import Invalid
from graybox.task import Classification, Regression, make_task, output_kind, true_class_ratings

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([0, 3, 1, 1, 2, 0])

ANSWERS = {
    "logits": lambda x: x,
    "probabilities": lambda x: x.softmax(1),
    "log_probabilities": lambda x: x.log_softmax(1),
}


@given(st.sampled_from(sorted(ANSWERS)), st.integers(0, 10_000), st.integers(2, 9), st.floats(0.1, 20.0))
def test_what_the_network_answers_is_recognised(kind: str, seed: int, classes: int, scale: float) -> None:
    logits = torch.randn(5, classes, generator=torch.Generator().manual_seed(seed)) * scale
    assert output_kind(ANSWERS[kind](logits)) == kind


@pytest.mark.parametrize("kind", sorted(ANSWERS))
@pytest.mark.parametrize("looked_before", [True, False])
def test_the_loss_and_its_gradient_are_the_cross_entropy_of_the_logits(kind: str, looked_before: bool) -> None:
    logits = LOGITS.double().requires_grad_()
    outputs = ANSWERS[kind](logits)
    task = Classification()
    if looked_before:
        task.prepare(outputs)
    result = task.evaluate(outputs, TARGET)
    result.loss.backward()
    oracle = LOGITS.double().requires_grad_()
    F.cross_entropy(oracle, TARGET).backward()
    assert oracle.grad is not None and logits.grad is not None
    torch.testing.assert_close(logits.grad, oracle.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        result.sample_losses, F.cross_entropy(LOGITS, TARGET, reduction="none"), rtol=1e-5, atol=1e-6
    )
    assert result.predictions is not None and torch.equal(result.predictions, LOGITS.argmax(1))
    assert result.classes == 4


def test_a_softmax_that_saturates_gives_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    task = Classification()
    outputs = logits.softmax(1)
    task.prepare(outputs)
    result = task.evaluate(outputs, torch.tensor([1]))
    result.loss.backward()
    assert torch.isfinite(result.loss) and 80 < float(result.loss.detach()) < 100
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize(
    ("criterion", "per_sample"),
    [
        (nn.CrossEntropyLoss(), lambda o, t: F.cross_entropy(o, t, reduction="none")),
        (nn.CrossEntropyLoss(reduction="sum"), lambda o, t: F.cross_entropy(o, t, reduction="none")),
        (nn.CrossEntropyLoss(reduction="none"), lambda o, t: F.cross_entropy(o, t, reduction="none")),
        (nn.MultiMarginLoss(), lambda o, t: F.multi_margin_loss(o, t, reduction="none")),
        (lambda o, t: F.cross_entropy(o, t, reduction="none"), lambda o, t: F.cross_entropy(o, t, reduction="none")),
        (F.cross_entropy, None),
        (lambda o, t: F.cross_entropy(o, t)[None], None),
    ],
)
def test_a_users_criterion_tells_losses_per_sample_where_it_can(criterion: Any, per_sample: Any) -> None:
    result = Classification(criterion).evaluate(LOGITS, TARGET)
    assert torch.equal(result.loss, criterion(LOGITS, TARGET).mean())
    if per_sample is None:
        assert bool(result.sample_losses.isnan().all()) and result.sample_losses.shape == (6,)
    else:
        torch.testing.assert_close(result.sample_losses, per_sample(LOGITS, TARGET))


def test_a_criterion_whose_reduction_means_nothing_tells_only_the_whole() -> None:
    class Own(nn.Module):
        reduction = "mean"

        def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(outputs, target)

    result = Classification(Own()).evaluate(LOGITS, TARGET)
    assert float(result.loss.detach()) > 0 and bool(result.sample_losses.isnan().all())


def test_the_criterion_itself_keeps_its_reduction() -> None:
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    Classification(criterion).evaluate(LOGITS, TARGET)
    assert criterion.reduction == "mean"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_class_numbers_of_every_integer_type_are_taken(dtype: torch.dtype) -> None:
    expected = Classification().evaluate(LOGITS, TARGET).loss
    assert torch.equal(Classification().evaluate(LOGITS, TARGET.to(dtype)).loss, expected)


@pytest.mark.parametrize("target", [TARGET.float(), F.one_hot(TARGET), TARGET[:4], torch.tensor(1)])
def test_a_target_that_names_no_classes_is_refused_by_name(target: torch.Tensor) -> None:
    with pytest.raises(Invalid, match=r"class number per sample, int64 \[6\], not \w+ \["):
        Classification().evaluate(LOGITS, target)


def test_an_image_instead_of_classes_is_refused() -> None:
    with pytest.raises(Invalid, match=r"\[batch, classes\], this network answers \[2, 3, 4, 4\]"):
        Classification().prepare(torch.zeros(2, 3, 4, 4))


def test_what_was_found_out_is_kept() -> None:
    task = Classification()
    task.prepare(LOGITS.softmax(1))
    again = Classification()
    again.load_state_dict(task.state_dict())
    assert again.output_kind == "probabilities"


def test_regression_is_the_mean_squared_error_per_sample_too() -> None:
    outputs, target = LOGITS, LOGITS.flip(0)
    result = Regression().evaluate(outputs, target)
    torch.testing.assert_close(result.loss, F.mse_loss(outputs, target))
    torch.testing.assert_close(result.sample_losses, (outputs - target).square().mean(1))
    assert result.predictions is None


def test_regression_takes_one_number_per_sample_with_or_without_its_axis() -> None:
    outputs = LOGITS[:, :1]
    flat = torch.arange(12.0)[::2]  # not contiguous, and of another shape
    torch.testing.assert_close(Regression().evaluate(outputs, flat.double()).loss, F.mse_loss(outputs, flat[:, None]))
    with pytest.raises(Invalid, match=r"answers \[6, 1\] and its targets are \[6, 2\]"):
        Regression().evaluate(outputs, torch.zeros(6, 2))


@pytest.mark.parametrize("batch", [torch.zeros(3), {"x": 1}, (torch.zeros(3),), None])
def test_a_batch_that_is_no_pair_is_refused(batch: Any) -> None:
    with pytest.raises(Invalid, match="a batch is a pair"):
        Classification().split_batch(batch)


def test_tasks_by_name() -> None:
    assert isinstance(make_task(None, None), Classification)
    assert isinstance(make_task("regression", None), Regression)
    own = Classification()
    assert make_task(own, None) is own
    with pytest.raises(Invalid, match=r"classification, regression.*not 'detection'"):
        make_task("detection", None)
    with pytest.raises(Invalid, match="pass the criterion to the task"):
        make_task(own, nn.CrossEntropyLoss())
    with pytest.raises(Invalid, match="output_kind"):
        Classification(output_kind="softmax")


@pytest.mark.parametrize("kind", sorted(ANSWERS))
@pytest.mark.parametrize("criterion", [None, nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_the_true_class_is_rated_by_its_probability_and_its_margin(kind: str, criterion: Any) -> None:
    task = Classification(criterion, output_kind=kind)
    ratings = task.evaluate(ANSWERS[kind](LOGITS), TARGET).ratings
    assert ratings is not None
    for place, true in enumerate(TARGET.tolist()):
        logits = LOGITS[place].tolist()
        rest = [value for number, value in enumerate(logits) if number != true]
        assert float(ratings[0, place]) == pytest.approx(float(LOGITS[place].softmax(0)[true]), rel=1e-5)
        assert float(ratings[1, place]) == pytest.approx(logits[true] - max(rest), rel=1e-4, abs=1e-5)


def test_what_has_no_true_class_is_not_rated() -> None:
    known = LOGITS.log_softmax(1)
    soft = F.one_hot(TARGET, 4).float()
    assert torch.equal(true_class_ratings(known, soft), true_class_ratings(known, TARGET))  # type: ignore[arg-type]
    unlabelled = torch.where(torch.arange(6) == 2, -100, TARGET)
    ratings = true_class_ratings(known, unlabelled)
    assert ratings is not None and ratings.isnan().all(0).tolist() == [False, False, True, False, False, False]
    for target in (None, {"boxes": 1}, torch.zeros(6), torch.zeros(5, dtype=torch.long), torch.zeros(6, 2, 2)):
        assert true_class_ratings(known, target) is None
    assert true_class_ratings(known[:, :1], torch.zeros(6, dtype=torch.long)) is None
