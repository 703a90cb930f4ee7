"""What an experiment and an evaluation measure: by name, or a person's own; checked before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAUROC

from graybox.errors import Invalid
from graybox.metric_choice import NAMES, checked_metrics, chosen, library_ready, needs_library
from graybox.task import Classification, Regression
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE
from tests.small_experiments import toy_experiment


def test_names_and_metrics_are_known_by_name() -> None:
    auroc, error = MulticlassAUROC(num_classes=3), MeanSquaredError()
    assert checked_metrics(None, Classification()) is None
    assert checked_metrics([], Classification()) == {}
    assert checked_metrics(["macro_f1", auroc], Classification()) == {"macro_f1": None, "MulticlassAUROC": auroc}
    assert checked_metrics({"auroc": auroc, "macro_f1": "macro_f1"}, Classification()) == {
        "auroc": auroc, "macro_f1": None,
    }  # fmt: skip
    assert checked_metrics((error,), Regression()) == {"MeanSquaredError": error}
    assert toy_experiment(metrics=["macro_f1"]).metrics == {"macro_f1": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("macro_f1", r"metrics is a list .*write \['macro_f1'\]"),
        (["f1"], "there is no metric 'f1'; there are accuracy, macro_f1"),
        (["macro_f1", "macro_f1"], "two metrics 'macro_f1'"),
        ([MeanSquaredError(), MeanSquaredError()], "two metrics 'MeanSquaredError'; pass a dict"),
        ([lambda a, b: 0], r"metrics holds a function; pass names \(accuracy.*\) or metrics of torchmetrics"),
        ({"loss": MeanSquaredError()}, "cannot be called 'loss'"),
        ({"mine": "macro_f1"}, "there is no metric 'macro_f1'"),
        ({" ": MeanSquaredError()}, "the name of a metric"),
    ],
)
def test_odd_metrics_are_refused(given: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        toy_experiment(metrics=given)


def test_a_problem_without_classes_has_no_metrics_of_classes() -> None:
    with pytest.raises(Invalid, match="macro_f1 needs a problem with one class per sample, not a regression"):
        checked_metrics(["macro_f1"], Regression())
    with pytest.raises(Invalid, match="per_class needs a problem with one class per sample"):
        chosen(["per_class"], None, Regression())
    assert chosen([], None, Regression()) == {}


def test_an_evaluation_measures_what_was_asked_for_or_what_the_experiment_does_or_all() -> None:
    auroc = MulticlassAUROC(num_classes=3)
    task = Classification()
    known = {"macro_f1": None, "auroc": auroc}
    assert chosen([], None, task) == dict.fromkeys(NAMES)
    assert chosen([], known, task) == known and chosen([], {}, task) == {}
    assert chosen(["auroc", "per_class", "auroc"], known, task) == {"auroc": auroc, "per_class": None}
    with pytest.raises(Invalid, match=r"there is no metric 'auroc'; there are accuracy, .*confusion_matrix$"):
        chosen(["auroc"], None, task)
    with pytest.raises(Invalid, match=r"confusion_matrix, auroc$"):
        chosen(["nonsense"], known, task)
    assert needs_library({"macro_f1": None}) and not needs_library({"accuracy": None, "auroc": auroc})


def test_the_library_is_loaded_beside_whoever_waits() -> None:
    script = (
        "import sys\n"
        "from graybox.metric_choice import library_ready\n"
        "assert 'torchmetrics' not in sys.modules\n"
        "library_ready(0.0)\n"
        "while not library_ready(0.1): pass\n"
        "assert 'torchmetrics.classification' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=REPOSITORY, check=True, timeout=10 * PATIENCE)
    while not library_ready(1.0):
        pass
