from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from graybox.errors import Invalid, NotFound
from graybox.modules_with_ops import (
    BatchNorm2dWithNeuronOps,
    Conv2dWithNeuronOps,
    Intermediary,
    LinearWithNeuronOps,
    NeuronLayer,
)
from graybox.tracking import TrackingMode
from tests.small_networks import bits, kept_random_state

Pair = tuple[nn.Module, nn.Module, torch.Tensor]

PAIRS: dict[str, Callable[[], Pair]] = {
    "conv": lambda: (
        nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        Conv2dWithNeuronOps(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        torch.randn(2, 3, 6, 6),
    ),
    "grouped conv without bias": lambda: (
        nn.Conv2d(4, 4, 1, groups=2, bias=False),
        Conv2dWithNeuronOps(4, 4, 1, groups=2, bias=False),
        torch.randn(2, 4, 3, 3),
    ),
    "linear": lambda: (nn.Linear(3, 4), LinearWithNeuronOps(3, 4), torch.randn(2, 3)),
    "linear on sequences": lambda: (
        nn.Linear(in_features=3, out_features=4, bias=False),
        LinearWithNeuronOps(in_features=3, out_features=4, bias=False),
        torch.randn(2, 5, 3),
    ),
    "norm": lambda: (nn.BatchNorm2d(3), BatchNorm2dWithNeuronOps(3), torch.randn(2, 3, 4, 4)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_computes_and_is_kept_as_torchs_own(name: str) -> None:
    plain, layer, x = PAIRS[name]()
    assert list(plain.state_dict()) == list(layer.state_dict())
    layer.load_state_dict(plain.state_dict())
    x2 = x.clone().requires_grad_()
    x.requires_grad_()
    one, other = plain(x), layer(x2)
    assert bits(one) == bits(other)
    one.square().sum().backward()
    other.square().sum().backward()
    assert x.grad is not None and x2.grad is not None and bits(x.grad) == bits(x2.grad)
    for p, q in zip(plain.parameters(), layer.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and bits(p.grad) == bits(q.grad)


def test_neurons_are_counted_along_both_dimensions() -> None:
    conv, linear = Conv2dWithNeuronOps(3, 4, 5), LinearWithNeuronOps(7, 2)
    assert (conv.neuron_count, conv.incoming_neuron_count) == (4, 3)
    assert (linear.neuron_count, linear.incoming_neuron_count) == (2, 7)
    assert BatchNorm2dWithNeuronOps(6).neuron_count == 6
    assert conv.get_module_id() != linear.get_module_id()


def test_intermediary_gets_the_output_under_the_layers_id() -> None:
    conv = Conv2dWithNeuronOps(3, 4, 3)
    intermediary: Intermediary = {}
    out = conv(torch.randn(2, 3, 5, 5), intermediary=intermediary)
    assert list(intermediary) == [conv.get_module_id()] and intermediary[conv.get_module_id()] is out


@pytest.mark.parametrize("mode", [TrackingMode.TRAIN, TrackingMode.EVAL])
def test_a_layer_alone_counts_its_own_output_in_the_present_mode(mode: TrackingMode) -> None:
    torch.manual_seed(0)
    layer = LinearWithNeuronOps(3, 4)
    x = torch.randn(6, 5, 3)
    layer(x)
    layer.tracking_mode = mode
    out = layer(x)
    layer(x, skip_register=True)
    used, other = layer.train_dataset_tracker, layer.eval_dataset_tracker
    if mode is TrackingMode.EVAL:
        used, other = other, used
    assert used.samples == 6 and other.samples == 0
    torch.testing.assert_close(used.rates(), (out > 0).double().mean((0, 1)), rtol=1e-12, atol=0)
    layer.register(torch.ones(2, 4))
    assert used.samples == 8
    layer.reset_stats()
    assert used.ages().tolist() == [0] * 4


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (lambda: Conv2dWithNeuronOps(3, 4, 3), lambda: nn.Conv2d(3, 4, 3)),
        (lambda: LinearWithNeuronOps(3, 4), lambda: nn.Linear(3, 4)),
        (lambda: LinearWithNeuronOps(3, 4, bias=False), lambda: nn.Linear(3, 4, bias=False)),
    ],
)
def test_own_initialisation_is_torchs_for_the_same_seed(
    layer: Callable[[], NeuronLayer], plain: Callable[[], nn.Module]
) -> None:
    ours = layer()
    before = {name: bits(value) for name, value in ours.state_dict().items()}
    with kept_random_state(5):
        fresh = ours.own_initialization()
    with kept_random_state(5):
        expected = plain().state_dict()
    assert list(fresh) == list(expected)
    assert all(torch.equal(fresh[name], expected[name]) for name in fresh)
    assert before == {name: bits(value) for name, value in ours.state_dict().items()}
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_a_registered_initialisation_counts_and_what_it_leaves_alone_is_torchs() -> None:
    layer = LinearWithNeuronOps(3, 4)
    weight = layer.weight.detach().clone()

    def to_seven(copied: NeuronLayer) -> None:
        assert copied is not layer
        nn.init.constant_(copied.weight, 7.0)

    layer.register_initialization(to_seven)
    with kept_random_state(5):
        fresh = layer.own_initialization()
    with kept_random_state(5):
        expected = nn.Linear(3, 4)
    assert torch.equal(fresh["weight"], torch.full((4, 3), 7.0))
    assert torch.equal(fresh["bias"], expected.bias)
    assert torch.equal(layer.weight, weight)


def test_learning_rates_are_factors_and_frozen_is_zero() -> None:
    layer = LinearWithNeuronOps(3, 4)
    assert [layer.get_per_neuron_learning_rate(i) for i in range(4)] == [1, 1, 1, 1]
    layer.set_per_neuron_learning_rate([1, 2], 0.25)
    layer.frozen[2] = True
    assert [layer.get_per_neuron_learning_rate(i) for i in range(4)] == [1, 0.25, 0, 1]
    layer.frozen[2] = False
    assert layer.get_per_neuron_learning_rate(2) == 0.25
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(Invalid, match="0 or more"):
            layer.set_per_neuron_learning_rate([0], wrong)
    for neuron in (-1, 4):
        with pytest.raises(NotFound, match=f"no neuron {neuron} in this layer: it has 4"):
            layer.set_per_neuron_learning_rate([0, neuron], 0.5)
    assert layer.neuron_learning_rate.tolist() == [1, 0.25, 0.25, 1]


def test_flags_and_statistics_round_trip_as_copies() -> None:
    layer, other = LinearWithNeuronOps(3, 4), LinearWithNeuronOps(3, 4)
    layer.tracking_mode = TrackingMode.TRAIN
    layer(torch.randn(6, 3))
    layer.frozen[1] = True
    layer.set_per_neuron_learning_rate([2], 0.5)
    state = layer.ops_state()
    other.load_ops_state(state)
    layer.frozen[0] = True
    layer(torch.randn(6, 3))
    layer.set_per_neuron_learning_rate([2], 0.75)
    for values in (other.ops_state(), state):
        assert values["frozen"].tolist() == [False, True, False, False]
        assert values["learning_rate"].tolist() == [1, 1, 0.5, 1]
        assert values["train"]["samples"] == 6 and values["eval"]["samples"] == 0
    with pytest.raises(Invalid, match="4 neurons do not fit 5"):
        LinearWithNeuronOps(3, 5).load_ops_state(state)


def test_a_deep_copy_shares_nothing() -> None:
    layer = LinearWithNeuronOps(3, 4)
    twin = copy.deepcopy(layer)
    twin.tracking_mode = TrackingMode.TRAIN
    twin.frozen[0] = True
    twin(torch.ones(2, 3))
    assert layer.tracking_mode is TrackingMode.DISABLED and not layer.frozen.any()
    assert layer.train_dataset_tracker.samples == 0 and twin.train_dataset_tracker.samples == 2
