"""Metrics of a pass are those that scikit-learn, or a plain calculation, finds of the same predictions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from torch.nn import functional as F
from torchmetrics import MeanSquaredError, Metric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from graybox.errors import Invalid
from graybox.evaluation_metrics import MAX_CLASSES, Measured, MetricSet, numbers_of
from graybox.metric_choice import NAMES
from graybox.task import Classification, Regression, StepResult
from graybox.training_step import BatchOutcome, read_outcome

CPU = torch.device("cpu")
ALL = dict.fromkeys(NAMES)


def measured(metrics: MetricSet, task: Any, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Measured:
    """What a pass over the batches measures."""
    outcomes = []
    for outputs, target in batches:
        result = task.evaluate(outputs, target)
        metrics.update(outputs, target, result)
        outcomes.append(read_outcome(result, target, np.arange(len(target))))
    return metrics.measured(together(outcomes))


def together(outcomes: list[BatchOutcome]) -> BatchOutcome:
    targets = [o.targets for o in outcomes if o.targets is not None]
    return BatchOutcome(
        rows=np.concatenate([o.rows for o in outcomes]),
        losses=np.concatenate([o.losses for o in outcomes]),
        predictions=None,
        loss=0.0,
        correct=None,
        targets=np.concatenate(targets) if targets else None,
    )


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """As Guo et al. write it."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    edges = np.linspace(0, 1, bins + 1, dtype=np.float32)
    where = np.clip(np.digitize(confidence, edges) - 1, 0, bins)
    found = [(where == each).nonzero()[0] for each in range(bins + 1)]
    return float(sum(len(i) / len(truth) * abs(right[i].mean() - confidence[i].mean()) for i in found if len(i)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 2**31),
    st.sampled_from([0.1, 1.0, 30.0, 1e4]), st.sampled_from(["logits", "probabilities", "log_probabilities"]),
)  # fmt: skip
def test_they_are_what_scikit_learn_finds(classes: int, sizes: list[int], seed: int, scale: float, kind: str) -> None:
    numbers = torch.Generator().manual_seed(seed)
    logits = [scale * torch.randn(size, classes, generator=numbers) for size in sizes]
    truth = [torch.randint(0, classes, (size,), generator=numbers) for size in sizes]
    task = Classification(output_kind=kind)
    answers = {
        "logits": logits, "probabilities": [part.softmax(1) for part in logits],
        "log_probabilities": [part.log_softmax(1) for part in logits],
    }[kind]  # fmt: skip
    found = measured(MetricSet(ALL, task, CPU), task, list(zip(answers, truth, strict=True)))
    true, probable = torch.cat(truth).numpy(), torch.cat(logits).softmax(1).numpy()
    predicted = torch.cat(answers).argmax(1).numpy()
    every = list(range(classes))
    assert set(found.values) == {"macro_f1", "calibration_error"}
    assert found.confusion is not None and found.classes is not None
    np.testing.assert_array_equal(found.confusion, oracle.confusion_matrix(true, predicted, labels=every))
    assert found.values["macro_f1"] == pytest.approx(oracle.f1_score(true, predicted, average="macro"))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        true, predicted, labels=every, zero_division=np.nan
    )
    np.testing.assert_array_equal(found.classes.support, support)
    np.testing.assert_allclose(found.classes.precision, precision)
    np.testing.assert_allclose(found.classes.recall, recall)
    np.testing.assert_allclose(found.classes.f1, f1)
    losses = torch.cat([task.evaluate(a, t).sample_losses for a, t in zip(answers, truth, strict=True)]).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class without samples
        means = np.array([losses[true == each].astype(np.float64).mean() for each in every])
    np.testing.assert_allclose(found.classes.mean_loss, means)
    if kind == "logits":  # what is told in another way is rounded on the way
        assert found.values["calibration_error"] == pytest.approx(calibration_error(probable, true), abs=2e-6)


def test_samples_without_a_class_do_not_count() -> None:
    task = Classification(torch.nn.CrossEntropyLoss(ignore_index=-100))
    logits, truth = torch.randn(6, 3), torch.tensor([0, -100, 2, 1, -100, 2])
    with_them = measured(MetricSet(ALL, task, CPU), task, [(logits, truth)])
    known = truth >= 0
    without = measured(MetricSet(ALL, task, CPU), task, [(logits[known], truth[known])])
    assert with_them.values == without.values
    np.testing.assert_array_equal(with_them.confusion, without.confusion)  # type: ignore[arg-type]
    assert measured(MetricSet(ALL, task, CPU), task, [(logits[~known], truth[~known])]) == Measured()


def test_only_what_was_chosen_is_measured() -> None:
    task = Classification()
    batch = [(torch.randn(6, 3), torch.randint(0, 3, (6,)))]
    for name, value, table, matrix in (
        ("accuracy", [], False, False), ("macro_f1", ["macro_f1"], False, False), ("per_class", [], True, False),
        ("confusion_matrix", [], False, True), ("calibration_error", ["calibration_error"], False, False),
    ):  # fmt: skip
        found = measured(MetricSet({name: None}, task, CPU), task, batch)
        assert (list(found.values), found.classes is not None, found.confusion is not None) == (value, table, matrix)


def test_low_precision_is_measured_in_single_precision() -> None:
    task = Classification()
    logits, truth = torch.randn(50, 3), torch.randint(0, 3, (50,))
    low = measured(MetricSet(ALL, task, CPU), task, [(logits.bfloat16(), truth)])
    same = measured(MetricSet(ALL, task, CPU), task, [(logits.bfloat16().float(), truth)])
    assert low.values == same.values


def test_a_probability_that_is_rounded_up_is_no_logit() -> None:
    task = Classification(output_kind="probabilities")
    answers = torch.tensor([[1.0000002, 0.0], [0.25, 0.75], [0.75, 0.25]])
    found = measured(MetricSet({"calibration_error": None}, task, CPU), task, [(answers, torch.tensor([0, 1, 0]))])
    assert found.values["calibration_error"] == pytest.approx((0 + 2 * 0.25) / 3, abs=1e-6)


def test_metrics_of_ones_own_get_probabilities_and_begin_empty() -> None:
    task = Classification()
    logits, truth = torch.randn(40, 4), torch.randint(0, 4, (40,))
    mine = MulticlassAUROC(num_classes=4, thresholds=None)
    mine.update(torch.randn(9, 4).softmax(1), torch.randint(0, 4, (9,)))  # of the person's own use
    chosen: dict[str, Metric | None] = {"auroc": mine, "top-2": MulticlassAccuracy(4, top_k=2, average="micro")}
    for _ in range(2):
        found = measured(MetricSet(chosen, task, CPU), task, [(logits[:30], truth[:30]), (logits[30:], truth[30:])])
        assert found.values["auroc"] == pytest.approx(
            oracle.roc_auc_score(truth, F.softmax(logits, 1), multi_class="ovr", labels=range(4))
        )
        assert found.values["top-2"] == pytest.approx(oracle.top_k_accuracy_score(truth, logits, k=2, labels=range(4)))
    assert mine._update_count == 1  # the person's own goes on where it was


def test_of_numbers_they_get_outputs_and_targets() -> None:
    task = Regression()
    outputs, target = torch.randn(12, 1), torch.randn(12)
    found = measured(MetricSet({"mse": MeanSquaredError()}, task, CPU), task, [(outputs, target)])
    assert found.values["mse"] == pytest.approx(oracle.mean_squared_error(target, outputs[:, 0]))


class Own:
    """A task of a person's own that tells predictions alone."""

    name = "own"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def evaluate(self, outputs: torch.Tensor, target: torch.Tensor) -> StepResult:
        return StepResult(outputs.sum(), torch.zeros(len(outputs)), outputs.argmax(1), self.classes)


def test_a_task_that_tells_no_probabilities_is_counted_all_the_same() -> None:
    task: Any = Own(3)
    logits, truth = torch.randn(20, 3), torch.randint(0, 3, (20,))
    found = measured(MetricSet(ALL, task, CPU, strict=False), task, [(logits, truth)])
    assert set(found.values) == {"macro_f1"} and found.confusion is not None
    own = measured(MetricSet({"exact": MulticlassAccuracy(3, average="micro")}, task, CPU), task, [(logits, truth)])
    assert own.values["exact"] == pytest.approx(float((logits.argmax(1) == truth).float().mean()))


@pytest.mark.parametrize(
    ("task", "target", "name", "reason"),
    [
        (Own(3), torch.zeros(4, dtype=torch.int64), "calibration_error", "tells no probabilities"),
        (Own(0), torch.zeros(4, dtype=torch.int64), "macro_f1", "no classes to compare"),
        (Own(3), torch.zeros(4), "per_class", "no classes to compare"),
        (
            Own(MAX_CLASSES + 1),
            torch.zeros(4, dtype=torch.int64),
            "confusion_matrix",
            "1,001 classes, and at most 1,000",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_or_left_out(task: Any, target: Any, name: str, reason: str) -> None:
    outputs = torch.randn(4, 3)
    with pytest.raises(Invalid, match=f"{name} cannot be measured here: .*{reason}"):
        measured(MetricSet({name: None}, task, CPU), task, [(outputs, target)])
    assert measured(MetricSet({name: None}, task, CPU, strict=False), task, [(outputs, target)]) == Measured()


def test_several_numbers_of_one_metric_are_told_apart() -> None:
    assert numbers_of("a", torch.tensor(0.5)) == {"a": 0.5}
    assert numbers_of("a", {"x": 1, "y": [2.0, np.float32(3)]}) == {"a/x": 1.0, "a/y/0": 2.0, "a/y/1": 3.0}
    assert numbers_of("a", torch.tensor([1.0, 2.0])) == {"a/0": 1.0, "a/1": 2.0}
    together = MetricCollection({"sum": SumMetric()})
    together.update(torch.tensor([1.0, 2.0]))
    assert numbers_of("mine", together.compute()) == {"mine/sum": 3.0}
    for odd in (torch.zeros(2, 2), "text", None, object()):
        with pytest.raises(Invalid, match=r"metric a computes .*; what is shown is a number, or several"):
            numbers_of("a", odd)
    with pytest.raises(Invalid, match="1,001 numbers; at most 1,000"):
        numbers_of("a", np.zeros(1_001))
