"""An experiment takes what can be trained, and says in one clear message why something cannot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.utils.data import IterableDataset, TensorDataset

from graybox.checks import checked_name, in_range, is_number, whole_in_range
from graybox.dash import Dash
from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid
from graybox.experiment import Experiment, available_device
from graybox.model_with_ops import NetworkWithOps
from tests.small_experiments import DropNet, toy_data, toy_experiment


class WithoutOps(NetworkWithOps):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(())


class Closure(optim.LBFGS):
    pass


def empty() -> TensorDataset:
    return TensorDataset(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": WithoutOps()}, "cannot be run on the example input: NotImplementedError"),
        ({"model": nn.BatchNorm2d(1)}, "BatchNorm2d has no layer with neurons: no parameter that could be a weight"),
        ({"model": nn.Linear(2, 2)}, "the network cannot be run on the example input: RuntimeError"),
        ({"model": nn.Bilinear(4, 4, 2), "example_input": (torch.ones(1, 4),) * 3}, "cannot be run on the example"),
        ({"model": DropNet}, "the model is a type; pass a torch.nn.Module"),
        ({"model": None}, "the model is a NoneType; pass a torch.nn.Module"),
        ({"train_dataset": empty()}, "the train data set is empty; it needs at least one sample"),
        ({"eval_dataset": empty()}, "the val data set is empty"),
        ({"test_dataset": []}, "the test data set is empty"),
        ({"train_dataset": None}, "train_dataset is None; an experiment needs samples"),
        ({"train_dataset": Stream()}, "Stream has no length or cannot be indexed; Graybox needs a map-style data set"),
        ({"eval_dataset": iter([1])}, "cannot be indexed"),
        ({"device": "gpu"}, "unknown device 'gpu'; right are 'cpu', 'cuda:0'"),
        ({"device": "cuda:-1"}, "unknown device 'cuda:-1'"),
        ({"device": None}, "unknown device None"),
        ({"device": "meta"}, "'meta' holds no numbers"),
        ({"task": "detection"}, "task is one of classification, regression"),
        ({"logger": print}, r"logger is a graybox.Dash, for example Dash\('graybox-runs'\), not a builtin"),
        ({"optimizer_class": Closure}, "Closure runs the model several times within one step"),
        ({"optimizer_class": lambda parameters, lr: None}, "optimizer_class makes a NoneType"),
        ({"name": "  "}, "name is a text of 1 to 200 characters"),
        ({"name": 7}, "name is a text"),
    ],
)
def test_what_cannot_be_trained_is_said(changes: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        toy_experiment(**changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "name",
    [
        "learning_rate", "batch_size", "training_steps_to_do", "full_eval_frequency", "checkpoint_frequency", "workers",
        "seed",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, "8", True, [8], 1e300, 10**400])
def test_numbers_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Invalid, match=f"^{name} is a (whole )?number (above|of at least) [01] and at most "):
        toy_experiment(**{name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0}, {"batch_size": 0}, {"batch_size": 64.5}, {"batch_size": 10**7},
        {"training_steps_to_do": 2**31}, {"workers": 1.5}, {"seed": 0.5},
    ],
)  # fmt: skip
def test_fractions_and_bounds(changes: Any) -> None:
    with pytest.raises(Invalid, match=next(iter(changes))):
        toy_experiment(**changes)


def test_numbers_of_numpy_are_numbers() -> None:
    experiment = toy_experiment(
        batch_size=np.int64(7), learning_rate=np.float32(0.5), training_steps_to_do=9.0, seed=np.uint8(3)
    )
    found = (experiment.batch_size, experiment.learning_rate, experiment.training_steps_to_do, experiment.seed)
    assert found == (7, 0.5, 9, 3) and [type(value) for value in found] == [int, float, int, int]
    assert not is_number(np.bool_(True)) and not is_number(torch.tensor(1)) and is_number(np.float16(2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here cuda:0 is there")
@pytest.mark.parametrize("device", ["cuda:0", torch.device("cuda:0"), "cuda", "cuda:99"])
def test_a_device_that_is_not_there_falls_back_with_a_warning(device: Any) -> None:
    with pytest.warns(UserWarning, match=r"this machine has no cuda(:\d+)?: training on the CPU instead") as caught:
        experiment = toy_experiment(device=device)
    assert experiment.device == torch.device("cpu") and len(caught) == 1
    with pytest.warns(UserWarning, match="no mps"):
        assert available_device("mps").type == "cpu"


def test_what_is_left_out_has_a_sensible_value(tmp_path: Path) -> None:
    experiment = Experiment(
        model=DropNet(), optimizer_class=optim.SGD, train_dataset=toy_data(), eval_dataset=None, root_log_dir=tmp_path
    )
    assert list(experiment.datasets) == ["train"] and isinstance(
        experiment.datasets["train"], DataSampleTrackingWrapper
    )
    assert isinstance(experiment.logger, Dash) and experiment.logger.root_directory == tmp_path
    assert experiment.scheduler is None and experiment.seed is None and experiment.class_names == ()
    assert experiment.optimizer.param_groups[0]["lr"] == 1e-3
    experiment.step_scheduler()
    experiment.scheduler_saw(0.5)


def test_a_refused_experiment_leaves_the_model_as_it_was() -> None:
    model = DropNet().eval()
    with pytest.raises(Invalid):
        toy_experiment(model=model, train_dataset=empty())
    assert not model.training


def test_a_model_in_evaluation_mode_is_trained_and_single_modules_stay() -> None:
    assert toy_experiment(model=DropNet().eval()).model.norm.training
    frozen = DropNet()
    frozen.norm.eval()
    model = toy_experiment(model=frozen).model
    assert model.training and not model.norm.training


def test_display_stats_prints_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    toy_experiment().display_stats()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("conv", "out", "Conv2d", "Linear", "age 0 samples"))


def test_checks_say_what_would_be_right() -> None:
    with pytest.raises(Invalid, match=r"^x is a number above 0 and at most 1,000, not 0$"):
        in_range("x", 0, 0, 1e3, exclusive=True)
    with pytest.raises(Invalid, match=r"^n is a whole number of at least 1 and at most 5, not 2\.5$"):
        whole_in_range("n", 2.5, 1, 5)
    with pytest.raises(Invalid, match=r"^name is a text of 1 to 200 characters, not ''$"):
        checked_name("name", "")
    assert (
        in_range("x", 1000, 0, 1e3) == 1000.0
        and whole_in_range("n", 5.0, 1, 5) == 5
        and checked_name("n", " a ") == "a"
    )
