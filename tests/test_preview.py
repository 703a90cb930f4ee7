from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from graybox.errors import Invalid
from graybox.neuron_ops import AddNeurons, Freeze, Reinitialize, RemoveNeurons, Several, SortByStat, Zerofy
from graybox.plan_summary import plan_summary_from_json
from graybox.preview import answer, change_of, quiet
from graybox.tracking import TrackingMode
from tests.small_networks import differences, one_thread  # noqa: F401
from tests.structure_oracles import logits, masked
from tests.surgery_cases import Desk, addition, removal


def test_a_preview_measures_what_the_edit_would_do() -> None:
    desk = Desk("Chain")
    plan = desk.planned(removal)
    assert plan.change is not None
    whole, expected = logits(desk.network, desk.x), logits(masked(desk.plain, plan.change), desk.x)
    found = desk.surgeon.preview(plan, desk.x)
    moved = float((whole - expected).abs().max())
    assert found.max_abs == pytest.approx(moved, rel=1e-9) and found.samples == len(desk.x)
    assert found.relative_to_largest == pytest.approx(moved / float(whole.abs().max()), rel=1e-9)
    assert moved > 0
    assert desk.surgeon.preview(addition(desk), desk.x).relative_to_largest < 1e-12
    assert desk.surgeon.preview(desk.surgeon.plan(Freeze("conv1")), desk.x).max_abs == 0
    measured = plan.with_measured(found)
    assert "logits moved by up to" in str(measured)
    assert plan_summary_from_json(measured.to_json()).measured == found


@pytest.mark.parametrize(
    "edit",
    [
        RemoveNeurons("conv1", (0, 2)),
        AddNeurons("conv1", count=2),
        SortByStat("conv1", statistic="weight_norm"),
        Reinitialize("conv1", (1,), zero_outgoing=True),
        Zerofy("conv2", (0,)),
        Freeze("conv1", (1,)),
        Several(edits=(RemoveNeurons("conv1", (0,)), RemoveNeurons("conv2", (1, 2)))),
    ],
    ids=lambda edit: edit.kind,
)
@pytest.mark.parametrize("training", [True, False])
def test_a_preview_leaves_no_trace(edit: Any, training: bool) -> None:
    desk = Desk("Chain")
    plan = desk.surgeon.plan(edit)
    drop = nn.Dropout(0.5)
    desk.plain.add_module("unused", drop)
    desk.network.train(training)
    drop.train(not training)
    desk.network.set_tracking_mode(TrackingMode.TRAIN)
    before, age = desk.state(), desk.network.get_age()
    parameters = list(desk.network.parameters())
    gradients = [p.grad for p in parameters]
    modes = [module.training for module in [*desk.network.modules(), desk.plain]]
    desk.surgeon.preview(plan, desk.x)
    assert differences(before, desk.state()) == []
    assert all(a is b for a, b in zip(parameters, desk.network.parameters(), strict=True))
    assert all(p.grad is gradient for p, gradient in zip(parameters, gradients, strict=True))
    assert modes == [module.training for module in [*desk.network.modules(), desk.plain]]
    assert desk.network.get_age() == age and desk.network.tracking_mode is TrackingMode.TRAIN
    desk.do(edit)
    desk.train()


def test_a_preview_of_a_network_that_cannot_take_the_batch_leaves_no_trace() -> None:
    desk = Desk("Chain")
    before = desk.state()
    with pytest.raises(RuntimeError):
        desk.surgeon.preview(desk.planned(removal), torch.zeros(2, 99, 4, 4, dtype=torch.float64))
    assert differences(before, desk.state()) == []


def test_looking_is_quiet() -> None:
    desk = Desk("Chain", steps=1)
    desk.network.train()
    state = torch.get_rng_state()
    with quiet(desk.network):
        assert not any(module.training for module in [*desk.network.modules(), desk.plain])
        assert not desk.network(desk.x).requires_grad
        torch.rand(3)
    assert desk.plain.training and desk.network.training
    assert torch.equal(torch.get_rng_state(), state)


class Answers(nn.Module):
    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor, y: Any = None) -> Any:
        return self.shape(x)


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: x,
        lambda x: (x, None),
        lambda x: [None, x],
        lambda x: {"loss": x[0], "logits": x},
        lambda x: {"aux": None, "out": x},
        lambda x: {"hidden": [x]},
    ],
)
def test_the_first_logits_are_found_in_whatever_is_answered(shape: Any) -> None:
    x = torch.randn(4, 3)
    for batch in (x, (x,), [x, 1], {"x": x}):
        assert torch.equal(answer(Answers(shape), batch), x.double())  # type: ignore[arg-type]


def test_an_answer_without_tensors_is_refused() -> None:
    with pytest.raises(Invalid, match="answers NoneType, in which there is no tensor"):
        answer(Answers(lambda x: None), torch.zeros(1))  # type: ignore[arg-type]


def test_logits_that_come_or_go_are_left_out() -> None:
    before, after = torch.tensor([[1.0, -4.0]]), torch.tensor([[2.0, -4.0, 9.0]])
    found = change_of(before, after)
    assert (found.max_abs, found.relative_to_largest, found.samples) == (1.0, 0.25, 1)
