"""A pass over a split: what a plain loop finds, counted whole or not at all, without a trace in the training."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from graybox.commands import DiscardSamples, EditNeurons, SetHyperParameters
from graybox.evaluation import EvaluationPass, example_outputs
from graybox.launch import launch
from graybox.neuron_ops import Freeze
from graybox.sample_stream import SampleLoadError
from graybox.tracking import TrackingMode
from graybox.training_step import BatchOutcome
from tests.small_experiments import Augmented, DropNet, Opened, toy_data, toy_experiment, weights, whole_state
from tests.small_networks import differences, random_state

Make = Callable[..., Opened]


def begin(
    each: Opened, batch_size: int = 6, discarded: tuple[int, ...] = ()
) -> tuple[EvaluationPass, list[BatchOutcome]]:
    seen: list[BatchOutcome] = []
    mask = np.zeros(20, dtype=bool)
    mask[list(discarded)] = True
    return EvaluationPass(each.session.experiment, "val", mask, batch_size=batch_size, seed=1, record=seen.append), seen


def test_it_finds_what_a_plain_loop_finds(opened: Make) -> None:
    each = opened()
    for _ in range(5):
        each.session.train_one_step()
    running, seen = begin(each, discarded=(2, 19))
    while running.advance():
        pass
    result = running.result()
    inputs, labels = toy_data(20, seed=1).tensors
    kept = torch.tensor([row for row in range(20) if row not in (2, 19)])
    model = each.session.network
    model.eval()
    with torch.no_grad():
        logits = model(inputs[kept])
    assert (result.split, result.samples, running.done, running.total) == ("val", 18, 18, 18)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, labels[kept])), rel=1e-5)
    assert result.accuracy == float((logits.argmax(1) == labels[kept]).double().mean())
    [whole] = seen
    assert whole.rows.tolist() == kept.tolist()
    assert whole.predictions is not None and whole.predictions.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(whole.losses, F.cross_entropy(logits, labels[kept], reduction="none"), rtol=1e-4)
    # The last layer triggers where it is the prediction, in the evaluation tracker alone.
    tracker = model.out.eval_dataset_tracker
    assert tracker.samples == 18
    assert tracker.triggers.tolist() == torch.bincount(logits.argmax(1), minlength=3).tolist()


def test_it_leaves_training_as_it_was(opened: Make) -> None:
    each = opened(eval_dataset=Augmented(20))
    each.session.train_one_step()
    each.session.network.norm.eval()  # a user's choice
    before, drawn = whole_state(each.session), random_state()
    modes = [module.training for module in each.session.network.modules()]
    running, _ = begin(each)
    while running.advance():
        assert [module.training for module in each.session.network.modules()] == modes
        assert differences(drawn, random_state()) == []
        assert each.session.network.tracking_mode is TrackingMode.DISABLED
        assert differences(before, whole_state(each.session)) == []  # nothing before it is through
    assert differences(drawn, random_state()) == []
    changed = differences(before, whole_state(each.session))
    assert changed and all("/eval/" in name for name in changed)


def test_a_pass_that_is_abandoned_leaves_nothing(opened: Make) -> None:
    each = opened(full_eval_frequency=2)
    session = each.session
    for _ in range(2):
        session.train_one_step()
    before = whole_state(session)
    session.advance_evaluation()
    session.advance_evaluation()
    session.abandon_evaluation()
    assert differences(before, whole_state(session)) == []
    while session.evaluation_due():
        session.advance_evaluation()
    assert session.network.conv.eval_dataset_tracker.samples == 20
    assert set(session.stores.samples.state()["val/encounters"].tolist()) == {1}


def test_a_split_that_is_discarded_whole_has_no_result(opened: Make) -> None:
    running, seen = begin(opened(), discarded=tuple(range(20)))
    assert not running.advance() and not seen
    result = running.result()
    assert (result.samples, result.accuracy) == (0, None) and np.isnan(result.loss)


def test_a_failing_sample_is_named(opened: Make, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("13")
    running, seen = begin(opened(eval_dataset=Augmented(20, broken)))
    with pytest.raises(SampleLoadError, match=r"val sample 13 failed to load: OSError.*discard the sample") as caught:
        while running.advance():
            pass
    assert "in __getitem__" in caught.value.trace and not seen


class Restless(DropNet):
    """Draws in evaluation mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.randn(3) * random.random()


@pytest.mark.parametrize("workers", [0, 1])
def test_weights_do_not_depend_on_evaluations(opened: Make, workers: int) -> None:
    torch.manual_seed(0)
    start = Restless().state_dict()

    def trained(frequency: int) -> dict[str, Any]:
        model = Restless()
        model.load_state_dict(start)
        session = opened(
            model=model, full_eval_frequency=frequency, train_dataset=Augmented(24), eval_dataset=Augmented(20),
            workers=workers,
        ).session  # fmt: skip
        while session.step < 12:
            if session.evaluation_due():
                session.advance_evaluation()
            else:
                session.train_one_step()
        assert (session.last_evaluation is not None) == bool(frequency)
        return weights(session)

    assert differences(trained(0), trained(2)) == []


@pytest.mark.parametrize(
    "command",
    [
        EditNeurons(Freeze("conv", (0,))), SetHyperParameters({"batch_size": 5}), DiscardSamples((("val", "3"),)),
        DiscardSamples((("train", "3"),)),
    ],
)  # fmt: skip
def test_what_would_change_it_starts_it_anew(root: Path, command: Any) -> None:
    training = launch(toy_experiment(full_eval_frequency=2), root_directory=root)
    try:
        trainer, session = training.trainer, training.trainer.session
        while session.evaluation is None or not session.evaluation.done:
            trainer.tick()
        began = session.evaluation
        trainer.submit(command)
        trainer._apply_waiting()
        assert session.evaluation is None
        while session.evaluation_due():
            trainer.tick()
        assert session.evaluation is not began
        expected = 19 if command == DiscardSamples((("val", "3"),)) else 20
        assert session.last_evaluation is not None and session.last_evaluation.samples == expected
        assert session.network.conv.eval_dataset_tracker.samples == expected
    finally:
        training.close()


def test_a_plateau_scheduler_sees_the_evaluation_loss(opened: Make) -> None:
    def plateau(optimizer: optim.Optimizer) -> Any:
        return optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    session = opened(scheduler=plateau, full_eval_frequency=3).session
    while session.step < 4:
        if session.evaluation_due():
            session.advance_evaluation()
        else:
            session.train_one_step()
    assert session.last_evaluation is not None
    assert session.experiment.scheduler.best == session.last_evaluation.loss  # type: ignore[union-attr]


def test_the_first_look_leaves_no_trace(root: Path, tmp_path: Path) -> None:
    experiment = toy_experiment(train_dataset=Augmented(9))
    before = {name: value.clone() for name, value in experiment.model.state_dict().items()}
    assert example_outputs(experiment).shape == (2, 3)
    after = {name: value.clone() for name, value in experiment.model.state_dict().items()}
    assert differences(before, after) == [] and experiment.model.get_age() == 0
    broken = tmp_path / "broken"
    broken.write_text("0")
    each = Opened(root, toy_experiment(train_dataset=Augmented(9, broken)))  # warns, but starts
    try:
        with pytest.raises(SampleLoadError):
            for _ in range(3):
                each.session.train_one_step()
        broken.write_text("")
        for _ in range(3):
            each.session.train_one_step()
        assert each.session.experiment.task.state_dict() == {"output_kind": "logits"}
    finally:
        each.close()


def test_a_network_that_ends_in_softmax_is_seen_through_even_when_the_first_sample_is_broken(
    root: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("0")

    class Soft(DropNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = nn.functional.softmax(super().forward(x), 1)
            return answer

    each = Opened(root, toy_experiment(model=Soft(), train_dataset=Augmented(9, broken)))
    try:
        broken.write_text("")
        each.session.train_one_step()
        assert each.session.experiment.task.state_dict() == {"output_kind": "probabilities"}
    finally:
        each.close()
