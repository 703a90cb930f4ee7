from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import optim

from graybox.errors import GrayboxError, Invalid, NotFound, Refused
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    FreezeBias,
    FreezeIncoming,
    NeuronEdit,
    OverrideBiases,
    OverrideWeights,
    Reinitialize,
    RemoveNeurons,
    SetLearningRate,
    SortByStat,
    Unfreeze,
    Zerofy,
)
from graybox.plan_summary import plan_summary_from_json
from graybox.surgery import Plan
from tests.small_networks import (
    ChainNet,
    ResidualNet,
    differences,
    everything,
    give_gradients,
    one_thread,  # noqa: F401
)
from tests.surgery_steps import ADAM, entries_changed, trained

# -- flags -----------------------------------------------------------------------------------------------


def test_freezing_is_a_state() -> None:
    model, _, _, surgeon = trained()

    def do(edit: NeuronEdit) -> list[bool]:
        surgeon.apply(surgeon.plan(edit), seed=1)
        return list(model.conv1.frozen.tolist())

    assert do(Freeze("conv1", (1, 3))) == [False, True, False, True]
    assert do(Freeze("conv1", (3, 0))) == [True, True, False, True]
    assert do(Unfreeze("conv1", (1,))) == [True, False, False, True]
    assert do(Unfreeze("conv1", (1, 2))) == [True, False, False, True]
    assert do(Freeze("0")) == [True] * 4
    assert do(Unfreeze("conv1")) == [False] * 4


def test_a_learning_rate_outlives_a_freeze_and_takes_effect_at_the_next_step() -> None:
    model, optimizer, _, surgeon = trained()
    for edit in (SetLearningRate("fc1", (2,), rate=0.5), Freeze("fc1", (2, 4))):
        applied = surgeon.apply(surgeon.plan(edit), seed=1)
    assert applied.plan.neurons == (2, 4)
    before = model.fc1.weight.detach().clone()
    give_gradients(model, 0)
    optimizer.step()
    changed = (model.fc1.weight != before).all(1).tolist()
    assert changed == [True, True, False, True, False, True]
    surgeon.apply(surgeon.plan(Unfreeze("fc1", (2,))), seed=1)
    assert model.fc1.get_per_neuron_learning_rate(2) == 0.5 and model.fc1.get_per_neuron_learning_rate(4) == 0


@pytest.mark.parametrize("edit", [Freeze("conv1", (1,)), SetLearningRate("conv1", (1,), rate=0.5)])
def test_an_edit_of_flags_touches_nothing_else(edit: NeuronEdit) -> None:
    model, optimizer, wrapper, surgeon = trained()
    before = everything(model, optimizer, wrapper)
    surgeon.apply(surgeon.plan(edit), seed=1)
    key = "frozen" if isinstance(edit, Freeze) else "learning_rate"
    assert differences(before, everything(model, optimizer, wrapper)) == [f"layer/conv1/{key}"]


@pytest.mark.parametrize(
    ("kind", "make", "edit", "error", "message"),
    [
        (ChainNet, ADAM, Freeze("nowhere"), NotFound, r"no layer 'nowhere' in this network; it has 0 \(conv1\)"),
        (ChainNet, ADAM, Reinitialize("bn1"), NotFound, "no layer 'bn1'"),
        (ChainNet, ADAM, Freeze("conv1", (0, 4)), NotFound, "no neuron 4 in this layer: it has 4, numbered from 0"),
        (ChainNet, ADAM, Reinitialize("conv1", (-1,)), NotFound, "no neuron -1"),
        (ChainNet, ADAM, Reinitialize("fc2", (0,), zero_outgoing=True), Refused, "nothing consumes the neurons of fc2"),
        (ChainNet, ADAM, RemoveNeurons("nowhere", (0,)), NotFound, "no layer 'nowhere'"),
        (ChainNet, ADAM, RemoveNeurons("conv1", (4,)), NotFound, "no neuron 4"),
        (ChainNet, ADAM, RemoveNeurons("conv1", (0, 1, 2, 3)), Refused, "all 4 neurons of conv1; name some of them"),
        (ChainNet, ADAM, RemoveNeurons("conv1"), Refused, "all 4 neurons of conv1; name some of them, and leave at l"),
        (ChainNet, ADAM, FreezeBias("conv2", (0,)), Refused, "conv2 has no bias to freeze"),
        (ChainNet, ADAM, FreezeIncoming("conv2", (4,)), NotFound, "no incoming neuron of conv2 has the number 4"),
        (ChainNet, ADAM, Unfreeze("conv2", (5,)), NotFound, "no neuron of conv2 has the number 5"),
        (ChainNet, ADAM, OverrideBiases("conv2", (0,), [1.0]), Refused, "conv2 has no bias; override its weights"),
        (ChainNet, ADAM, OverrideBiases("fc1", (0,), [1.0, 2.0]), Invalid, r"shape \[1\], not \[2\]"),
        (ChainNet, ADAM, OverrideWeights("fc2", (0,), [[1.0]]), Invalid, r"shape \[1, 6\] or \[6\], not \[1, 1\]"),
        (ChainNet, ADAM, OverrideWeights("fc2", (0,), [[1e300] * 6]), Invalid, "float32, which cannot hold them"),
        (ChainNet, ADAM, Zerofy("fc2", (0,), (6,)), Invalid, "no incoming neuron 6 in fc2: it has 6"),
        (ChainNet, ADAM, Zerofy("fc2", (0,), from_frozen=True), Refused, "a neuron that is frozen; nothing to zero"),
        (ChainNet, ADAM, SortByStat("fc1", (0, 1)), Invalid, "names each of the 6 once"),
        (ChainNet, ADAM, SortByStat("fc1", statistic="beauty"), NotFound, "no statistic 'beauty'; there are age"),
        (ChainNet, lambda p: optim.Adafactor(p), RemoveNeurons("conv1", (0,)), Refused, "^Adafactor couples"),
        (ChainNet, lambda p: optim.Adafactor(p), AddNeurons("conv1"), Refused, "^Adafactor couples"),
        (ChainNet, lambda p: optim.LBFGS(p), Reinitialize("conv1", (0,)), Refused, "^LBFGS couples"),
        (ChainNet, lambda p: optim.Adafactor(p), Reinitialize("conv1", (0,)), Refused, "^Adafactor couples"),
        (ResidualNet, ADAM, Reinitialize("conv2", (0,), zero_outgoing=True), Refused, "joined with those of stem"),
        (ResidualNet, ADAM, Reinitialize("stem", (0,), zero_outgoing=True), Refused, "joined with those of conv2"),
    ],
)
def test_a_refused_edit_changes_nothing_at_all(
    kind: type[Any], make: Any, edit: NeuronEdit, error: type[GrayboxError], message: str
) -> None:
    lbfgs = "LBFGS" in message
    model, optimizer, wrapper, surgeon = trained(kind, make, steps=0 if lbfgs else 3)
    before = everything(model, optimizer, wrapper)
    with pytest.raises(error, match=message):
        surgeon.apply(surgeon.plan(edit), seed=1)
    assert differences(before, everything(model, optimizer, wrapper)) == []


@pytest.mark.parametrize("edit", [Freeze("conv2"), Reinitialize("conv2", (1,), zero_outgoing=True)])
def test_planning_changes_nothing(edit: NeuronEdit) -> None:
    model, optimizer, wrapper, surgeon = trained()
    before = everything(model, optimizer, wrapper)
    surgeon.plan(edit)
    assert differences(before, everything(model, optimizer, wrapper)) == []


def test_a_plan_names_exactly_what_will_change() -> None:
    model, _, _, surgeon = trained()
    plan: Plan = surgeon.plan(Reinitialize("conv2", (4, 1), zero_outgoing=True))
    assert plan.parameters_before == plan.parameters_after == model.get_parameter_count()
    assert plan.summary() == "Reinitialised neurons 1, 4 of conv2, outgoing connections zeroed"
    assert "fc1.weight, axis 1, 4-7, 16-19: zero" in str(plan)
    before = copy.deepcopy(model.state_dict())
    surgeon.apply(plan, seed=1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {touch.tensor for touch in plan.touches}
    for touch in plan.touches:
        old, new = before[touch.tensor], model.state_dict()[touch.tensor]
        assert {index[touch.axis] for index in entries_changed(old, new)} == set(touch.indices)


def test_a_plan_of_structure_says_what_goes_and_what_that_saves() -> None:
    model, _, _, surgeon = trained()
    plan: Plan = surgeon.plan(RemoveNeurons("conv2", (1,)))
    before = {name: value.shape for name, value in model.state_dict().items()}
    found = {(touch.tensor, touch.axis): touch.indices for touch in plan.touches}
    assert found[("conv2.weight", 0)] == found[("bn2.running_var", 0)] == (1,)
    assert found[("fc1.weight", 1)] == (4, 5, 6, 7)
    assert plan.coupled == {"conv2": (1,)}
    surgeon.apply(plan, seed=1)
    for name, value in model.state_dict().items():
        shape = list(before[name])
        for (tensor, axis), indices in found.items():
            if tensor == name:
                shape[axis] -= len(indices)
        assert list(value.shape) == shape, name
    assert plan.parameters_after == model.get_parameter_count()
    assert plan.multiply_adds_after <= plan.multiply_adds_before
    summary = plan_summary_from_json(json.loads(json.dumps(plan.to_json())))
    assert summary.summary == plan.summary() == "Removed neuron 1 of conv2" and summary.text == str(plan)
    assert summary.neurons == {"conv2": ((1, 1),)}
    assert "fc1.weight, axis 1, 4-7: removed" in summary.text


@pytest.mark.parametrize(
    ("edit", "summary"),
    [
        (Freeze("conv1", (1,)), "Froze neuron 1 of conv1"),
        (Unfreeze("0", (0, 1, 2)), "Unfroze neurons 0-2 of conv1"),
        (FreezeBias("conv1", (1,)), "Froze the bias of neuron 1 of conv1"),
        (FreezeIncoming("fc1", (1, 2)), "Froze the connections from incoming neurons 1-2 into fc1"),
        (Zerofy("fc1", (1,)), "Zeroed neuron 1 of fc1"),
        (
            Zerofy("fc1", (1,), (3, 4), True, True),
            "Zeroed neuron 1 of fc1, connections from incoming neurons 3-4 and "
            "from frozen neurons and from older neurons",
        ),
        (OverrideBiases("fc1", (0, 1), [1.0, 2.0]), "Set the biases of neurons 0-1 of fc1"),
        (SortByStat("fc1", statistic="weight_norm"), "Sorted the neurons of fc1 by weight_norm, descending"),
        (RemoveNeurons("fc1", (0, 5)), "Removed neurons 0, 5 of fc1"),
        (AddNeurons("fc1", count=3), "Added 3 neurons to fc1"),
        (SetLearningRate("fc1", (0, 2, 3), rate=0.5), "Set the learning rate of neurons 0, 2-3 of fc1 to 0.5 times"),
    ],
)
def test_a_plan_reads_well(edit: NeuronEdit, summary: str) -> None:
    _, _, _, surgeon = trained(steps=0)
    assert surgeon.plan(edit).summary() == summary
