"""Several layers edited as one, and edits that are inexact or only possible for a whole group."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn, optim

from graybox.errors import Refused
from graybox.neuron_ops import (
    AddNeurons,
    NeuronEdit,
    Reinitialize,
    RemoveNeurons,
    Select,
    Several,
    SortByStat,
    edit_from_json,
)
from graybox.operable_network import operable
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.selection import statistic
from graybox.structure.change import Fill
from graybox.surgery import Surgeon
from tests.small_networks import (
    differences,
    one_thread,  # noqa: F401
)
from tests.structure_oracles import check_attributes, logits
from tests.surgery_cases import (
    Desk,
    addition,
    removal,
)

# -- several at once -------------------------------------------------------------------------------------------


def test_several_layers_are_edited_as_one() -> None:
    desk = Desk("Chain")
    before = desk.state()
    counts = {name: layer.neuron_count for name, layer in desk.network.named_layers()}
    edit = Several(edits=(RemoveNeurons("conv1", (0, 2)), RemoveNeurons("conv2", (1,))))
    applied = desk.do(edit)
    found = {name: layer.neuron_count for name, layer in desk.network.named_layers()}
    assert found == {**counts, "conv1": counts["conv1"] - 2, "conv2": counts["conv2"] - 1}
    assert applied.plan.summary() == "Removed neurons 0, 2 of conv1; Removed neuron 1 of conv2"
    assert applied.plan.parameters_after == desk.network.get_parameter_count()
    desk.undo(applied)
    assert differences(before, desk.state()) == []


def test_neurons_that_went_with_others_are_not_removed_twice() -> None:
    desk = Desk("Residual")
    plan = desk.planned(removal)
    coupled = [name for name in plan.coupled if name != plan.layer]
    assert coupled, "a residual stream couples layers"
    before = {name: layer.neuron_count for name, layer in desk.network.named_layers()}
    edit = Several(edits=(RemoveNeurons(plan.layer, (1,)), RemoveNeurons(coupled[0], (1, 3))))
    desk.do(edit)
    after = {name: layer.neuron_count for name, layer in desk.network.named_layers()}
    assert after[plan.layer] == before[plan.layer] - 2 and after[coupled[0]] == before[coupled[0]] - 2


def summed(desk: Desk) -> tuple[str, str]:
    """Two layers whose neurons are summed, so that an edit of one moves the other's."""
    plan = desk.planned(removal)
    return plan.layer, next(name for name in plan.coupled if name != plan.layer)


@pytest.mark.parametrize(
    "edit",
    [
        SortByStat("", statistic="trigger_rate"),
        SortByStat("", statistic="gradient_norm", descending=False),
        RemoveNeurons("", (0, 2)),
        AddNeurons("", count=2),
    ],
    ids=["sort by triggers", "sort by gradients", "remove", "add"],
)
def test_what_was_resolved_is_done_again_whatever_the_statistics_are_by_then(edit: NeuronEdit) -> None:
    """As a replay does it from the journal: a gradient, for one, is in no checkpoint."""
    live, replayed = Desk("Residual"), Desk("Residual")
    layers = summed(live)
    plan = live.surgeon.plan(edit, Select(layers=layers, neurons=edit.neurons))
    assert isinstance(plan.edit, Several) and len(plan.edit.edits) == 2
    journalled = json.loads(json.dumps(plan.edit.to_json()))
    for network in (replayed.network, replayed.plain):
        network.zero_grad()
    replayed.network.reset_all_stats()
    live.surgeon.apply(plan, 5)
    replayed.do(edit_from_json(journalled), 5)
    kept = [name for name in live.state() if name.startswith(("model/", "optimizer/", "young/", "module/"))]
    found = differences(live.state(), replayed.state())
    assert [name for name in kept if name in found] == []


def test_of_summed_layers_that_are_sorted_as_one_the_order_of_the_last_one_stays() -> None:
    desk = Desk("Residual")
    first, last = summed(desk)
    answer = logits(desk.network, desk.x)
    before = desk.state()
    applied = desk.surgeon.apply(desk.surgeon.plan(SortByStat("", statistic="weight_norm"), Select((first, last))), 5)
    for name, falls in ((first, False), (last, True)):
        found = statistic(desk.network.find_layer(name)[1], "weight_norm")
        assert bool((found[:-1] >= found[1:]).all()) == falls, name
    assert float((logits(desk.network, desk.x) - answer).abs().max()) <= 1e-9 * float(answer.abs().max())
    desk.undo(applied)
    assert differences(before, desk.state()) == []


def test_what_is_not_possible_together_is_refused() -> None:
    desk = Desk("Chain")
    count = desk.network.find_layer("conv1")[1].neuron_count
    # Each alone is possible, both together leave no neuron.
    half = tuple(range(count - 1))
    edit = Several(edits=(RemoveNeurons("conv1", half), RemoveNeurons("conv1", (count - 1,))))
    before = desk.state()
    with pytest.raises(Refused, match="keep at least"):
        desk.surgeon.plan(edit)
    assert differences(before, desk.state()) == []
    desk.do(RemoveNeurons("conv1", (0,)))
    desk.train()


def test_a_plan_made_before_another_edit_is_made_anew() -> None:
    desk = Desk("Chain")
    plan = desk.surgeon.plan(RemoveNeurons("conv1", (0,)))
    desk.do(RemoveNeurons("conv2", (0,)))
    desk.surgeon.apply(plan, 1)
    check_attributes(desk.plain)
    desk.train()


def test_new_entries_of_normalisations_start_neutral() -> None:
    desk = Desk("Chain")
    plan = addition(desk)
    assert plan.change is not None
    desk.surgeon.apply(plan, 1)
    neutral = {Fill.ONE: 1.0, Fill.NOUGHT: 0.0, Fill.ZERO: 0.0}
    checked = 0
    for axis in plan.change.axes:
        if axis.fill in neutral:
            new = desk.network.tensor(axis.tensor).detach().index_select(axis.axis, torch.from_numpy(axis.added))
            assert (new == neutral[axis.fill]).all()
            checked += 1
    assert checked == 5  # gain, shift, running mean and variance, and the columns of what consumes them


# -- where exactness is impossible ---------------------------------------------------------------------------


def test_what_is_inexact_is_refused_with_the_reason_unless_it_is_allowed() -> None:
    desk = Desk("MlpLayerNorm")
    before = desk.state()
    with pytest.raises(Refused, match=r"by more than what is removed or added: .*allow_inexact"):
        desk.surgeon.plan(RemoveNeurons("fc1", (1,)))
    plan = desk.surgeon.plan(RemoveNeurons("fc1", (1,), allow_inexact=True))
    assert plan.inexact and all(f"not exact: {reason}" in str(plan) for reason in plan.inexact)
    found = desk.surgeon.preview(plan, desk.x)
    assert found.max_abs > 0 and differences(before, desk.state()) == []
    whole = logits(desk.network, desk.x)
    applied = desk.surgeon.apply(plan, 1)
    assert float((logits(desk.network, desk.x) - whole).abs().max()) == pytest.approx(found.max_abs, rel=1e-9)
    desk.undo(applied)
    assert differences(before, desk.state()) == []


def test_what_can_only_go_together_is_named() -> None:
    desk = Desk("Grouped")
    with pytest.raises(Refused) as caught:
        desk.surgeon.plan(RemoveNeurons("conv2.0", (0,)))
    together = caught.value.details["together"]
    assert 0 in together and len(together) > 1
    desk.do(RemoveNeurons("conv2.0", tuple(together)))
    desk.train()


class Projection(nn.Module):
    """A layer without an initialisation of its own, as Hugging Face's Conv1D; weight [incoming, neurons]."""

    def __init__(self, incoming: int, neurons: int) -> None:
        super().__init__()
        self.nx, self.nf = incoming, neurons
        self.weight = nn.Parameter(0.02 * torch.randn(incoming, neurons))
        self.bias = nn.Parameter(torch.zeros(neurons))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight)


def test_a_layer_without_an_initialisation_of_its_own_is_said_to_be_drawn_like_its_present_weights() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(Projection(6, 200), nn.ReLU(), Projection(200, 3))
    x = torch.randn(4, 6)
    network = operable(plain, x)
    surgeon = Surgeon(network, OptimizerWithOps(optim.Adam(network.parameters()), network))
    expected, weight = plain(x).detach(), plain[0].weight.detach().clone()
    for edit in (AddNeurons("0", count=300), Reinitialize("0", (0, 1))):
        plan = surgeon.plan(edit)
        assert "no initialisation of its own" in str(plan) and "standard deviation" in plan.notes[0]
    surgeon.apply(surgeon.plan(AddNeurons("0", count=300)), 1)
    assert torch.allclose(plain(x), expected, rtol=1e-5, atol=1e-6)
    assert plain[0].weight.shape == (6, 500) and torch.equal(plain[0].weight[:, :200], weight)
    assert float(plain[0].weight.detach()[:, 200:].std()) == pytest.approx(float(weight.std()), rel=0.1)
