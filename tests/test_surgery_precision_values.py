"""Freezes, learning rates and overwritten values in float32 and under autocast: compared with what must be so."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graybox.errors import Invalid
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
from graybox.randomness import seeded
from tests.optimizer_oracles import within_one_unit
from tests.precision_cases import (
    AUTOCAST,
    PRECISIONS,
    PreciseDesk,
    Precision,
    check_differs,
    check_same,
    full_precision,  # noqa: F401
)
from tests.small_networks import ELEMENTWISE_OPTIMIZERS, bits, differences, one_thread  # noqa: F401
from tests.surgery_cases import values
from tests.test_surgery_revives import test_a_dead_neuron_comes_back as check_that_a_dead_neuron_comes_back
from tests.test_surgery_values import check_exactly, entries

CLASSES = {
    "SGD nesterov", "Adam amsgrad", "AdamW fused", "NAdam", "RAdam", "Adamax", "Adagrad decay", "Adadelta",
    "RMSprop all", "Rprop", "ASGD",
}  # fmt: skip
"""An optimizer of each class."""
WEIGHTED = ("weight", "bias")


def paired(names: set[str], in_float32: set[str]) -> list[Any]:
    """Optimizers under autocast, some of them in float32 too."""
    return [
        pytest.param(name, precision, id=f"{name}-{precision}")
        for precision in PRECISIONS
        for name in sorted(names if precision.autocast else in_float32)
    ]


# -- freezes and learning rates ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "precision"), paired(CLASSES, {"RMSprop all", "ASGD"}))
def test_each_freeze_keeps_its_bits_while_the_rest_is_trained(name: str, precision: Precision) -> None:
    desk = PreciseDesk("Chain", precision, ELEMENTWISE_OPTIMIZERS[name])
    for edit in (Freeze("conv1", (0, 3)), FreezeBias("fc1", (1, 2)), FreezeIncoming("fc1", (3,))):
        desk.do(edit)
    frozen = {
        **{f"{each}.{key}": entries(desk, f"{each}.{key}", [0, 3]) for each in ("conv1", "bn1") for key in WEIGHTED},
        "fc1.bias": entries(desk, "fc1.bias", [1, 2]),
        "fc1.weight": entries(desk, "fc1.weight", slice(None), 3),
    }
    start, statistics = values(desk.plain), desk.plain.get_buffer("bn1.running_mean").clone()
    desk.train(10)
    for key, parameter in desk.plain.named_parameters():
        kept = frozen.get(key, torch.zeros(parameter.shape, dtype=torch.bool))
        assert bits(parameter[kept]) == bits(start[key][kept]), key
        assert bool((parameter != start[key])[~kept].float().mean() > 0.5), key
    assert bool((desk.plain.get_buffer("bn1.running_mean") != statistics).all()), "statistics go on"
    for edit in (Unfreeze("conv1"), Unfreeze("fc1", (1, 2, 3))):
        desk.do(edit)
    desk.train()
    for key, kept in frozen.items():
        assert bits(desk.plain.get_parameter(key)[kept]) != bits(start[key][kept]), key


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_a_frozen_neuron_keeps_its_bits_through_edits_and_training(precision: Precision) -> None:
    desk = PreciseDesk("Chain", precision, ELEMENTWISE_OPTIMIZERS["AdamW fused"])
    layer: Any = desk.network.find_layer("conv1")[1]
    scaler = torch.amp.GradScaler(precision.device, init_scale=256.0)
    desk.do(Freeze("conv1", (3,)))

    def rows(place: int) -> list[bytes]:
        return [bits(desk.plain.get_parameter(f"{name}.{key}")[place]) for name in ("conv1", "bn1") for key in WEIGHTED]

    before = rows(3)
    for edit in (
        RemoveNeurons("conv1", (0, 1)),
        AddNeurons("conv1", count=2),
        SortByStat("conv1", (4, 3, 1, 0, 2)),
        Reinitialize("conv1", (0,), zero_outgoing=True),
    ):
        desk.do(edit)
        desk.train(2)
        desk.backward(scaler)
        scaler.step(desk.optimizer)
        scaler.update()
        (place,) = layer.frozen.nonzero().flatten().tolist()
        assert rows(place) == before
        assert all(bits(row) not in before for n, row in enumerate(layer.weight) if n != place)
    assert scaler.get_scale() == 256, "no step was skipped"


@pytest.mark.parametrize(("name", "precision"), paired(CLASSES, {"AdamW fused", "Rprop"}))
def test_a_learning_rate_scales_the_optimizers_own_update(name: str, precision: Precision) -> None:
    desk = PreciseDesk("Chain", precision, ELEMENTWISE_OPTIMIZERS[name])
    rates = {0: 0.5, 1: 2.0, 2: 0.0, 3: 0.3}
    for neuron, rate in rates.items():
        desk.do(SetLearningRate("conv1", (neuron,), rate=rate))
    old = values(desk.plain)
    desk.backward()
    twin, unscaled = copy.deepcopy((desk.plain, desk.optimizer))
    for p, q in zip(desk.plain.parameters(), twin.parameters(), strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    desk.optimizer.step()
    unscaled.step()
    scaled = {f"{layer}.{key}" for layer in ("conv1", "bn1") for key in WEIGHTED}
    for key, parameter in desk.plain.named_parameters():
        its_own = twin.get_parameter(key).detach()
        if key not in scaled:
            assert bits(parameter) == bits(its_own), key
            continue
        for neuron in range(len(parameter)):
            new = parameter.detach()[neuron]
            assert within_one_unit(old[key][neuron], its_own[neuron], rates.get(neuron, 1.0), new), (key, neuron)
        assert bits(parameter[2]) == bits(old[key][2])
    assert bits(desk.plain.get_parameter("conv1.weight")) != bits(twin.get_parameter("conv1.weight"))


# -- a gradient scaler -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", AUTOCAST, ids=str)
@pytest.mark.parametrize("name", ["AdamW fused", "SGD dampening"])
def test_after_each_edit_a_scaled_step_is_the_unscaled_one(name: str, precision: Precision) -> None:
    """Powers of two scale and unscale without rounding."""
    desk, twin = (PreciseDesk("Chain", precision, ELEMENTWISE_OPTIMIZERS[name]) for _ in range(2))
    scaler = torch.amp.GradScaler(precision.device, init_scale=256.0)
    for edit in (
        RemoveNeurons("conv1", (1,)),
        AddNeurons("conv2", count=2),
        SortByStat("conv1", (3, 1, 0, 2)),
        Reinitialize("fc1", (1, 2), zero_outgoing=True),
        SetLearningRate("conv1", (1,), rate=0.5),
    ):
        for each in (desk, twin):
            each.do(edit)
        desk.backward(scaler)
        for p, q in zip(desk.plain.parameters(), twin.plain.parameters(), strict=True):
            assert p.grad is not None
            q.grad = p.grad / 256
        scaler.step(desk.optimizer)
        scaler.update()
        twin.optimizer.step()
        # The twin has seen no data since, which running statistics and those of its neurons tell.
        stepped = {key for key in desk.state() if key.startswith("optimizer/")}
        stepped |= {f"model/{key}" for key, _ in desk.plain.named_parameters()}
        assert not stepped & set(differences(desk.state(), twin.state())), edit
    before = desk.state()
    desk.backward(scaler)
    gradient = desk.plain.get_parameter("conv1.weight").grad
    assert gradient is not None
    gradient[0, 0, 0, 0] = float("inf")
    scaler.step(desk.optimizer)
    scaler.update()
    assert scaler.get_scale() == 128, "the step is skipped"
    parameters = {f"model/{key}" for key, _ in desk.plain.named_parameters()}
    assert not parameters & set(differences(before, desk.state()))


# -- values ------------------------------------------------------------------------------------------------

REINITIALIZED = {
    "Chain": "conv2",  # flattened from 2 x 2 positions
    "UNet": "up",
    "Chain3d": "conv1",
    "FeaturesLast": "mix",
    "BagOfWords": "embed",
}


@pytest.mark.parametrize("topology", REINITIALIZED)
@pytest.mark.parametrize("precision", AUTOCAST, ids=str)
def test_with_outgoing_zeroed_the_function_changes_by_the_removed_contribution(
    topology: str, precision: Precision
) -> None:
    desk = PreciseDesk(topology, precision)
    name = REINITIALIZED[topology]
    neurons = tuple(range(2, desk.network.find_layer(name)[1].neuron_count))
    change = desk.surgeon.plan(RemoveNeurons(name, neurons)).change
    assert change is not None
    desk.rely_on(change)
    whole, expected = desk.answers(), desk.answers(desk.without(change))
    desk.do(Reinitialize(name, neurons, zero_outgoing=True))
    check_same(desk.answers(), expected)
    check_differs(whole, expected)
    desk.train()


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_a_reinitialised_neuron_has_its_layers_own_initialisation(precision: Precision) -> None:
    desk = PreciseDesk("Chain", precision)
    before = values(desk.plain)
    with precision.forward():  # what a region converts is no business of an edit's
        desk.do(Reinitialize("conv1", (1, 3)), seed=7)
    with seeded(7):
        fresh = nn.Conv2d(2, 2, 3)
    assert fresh.bias is not None
    expected = {
        "conv1.weight": fresh.weight, "conv1.bias": fresh.bias, "bn1.weight": torch.ones(2), "bn1.bias": torch.zeros(2),
        "bn1.running_mean": torch.zeros(2), "bn1.running_var": torch.ones(2),
    }  # fmt: skip
    for key, value in values(desk.plain).items():
        if key in expected:
            assert bits(value[[1, 3]]) == bits(expected[key]), key
            assert bits(value[[0, 2, 4]]) == bits(before[key][[0, 2, 4]]), key
        else:
            assert bits(value) == bits(before[key]), key


def test_a_dead_neuron_comes_back_under_autocast() -> None:
    # Without the cache, because the optimizer's steps are within the region.
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        check_that_a_dead_neuron_comes_back("conv1", True, 1, "Adam", False)


THIRDS = np.arange(2 * 2 * 9, dtype=np.float64).reshape(2, 2, 3, 3) / 3 + 1


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ["Adam", "SGD nesterov", "RMSprop all", "Adadelta"])
def test_exactly_the_named_entries_change(name: str, precision: Precision) -> None:
    desk = PreciseDesk("Chain", precision, ELEMENTWISE_OPTIMIZERS[name])

    def check(edit: NeuronEdit, **where: Any) -> None:
        """where: by the name of a parameter with _ for its dot, the index of what changes."""
        named = {key.replace("_", "."): index for key, index in where.items()}
        with precision.forward():
            check_exactly(desk, edit, {key: entries(desk, key, *index) for key, index in named.items()})
        desk.train()

    check(Zerofy("conv1", (0, 2)), conv1_weight=([0, 2],), conv1_bias=([0, 2],))
    check(Zerofy("conv2", (1, 2), (0, 3)), conv2_weight=([[1], [2]], [0, 3]))
    check(OverrideWeights("conv1", (3, 1), THIRDS), conv1_weight=([1, 3],))
    check(OverrideBiases("fc1", (3, 0), [1 / 3, 6.0]), fc1_bias=([0, 3],))


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_given_values_are_rounded_once_and_too_large_ones_refused(precision: Precision) -> None:
    desk = PreciseDesk("Chain", precision)
    with precision.forward():
        desk.do(OverrideWeights("conv1", (3, 1), THIRDS))
        desk.do(OverrideBiases("fc1", (3, 0), [1 / 3, 6.0]))
        found = desk.plain.get_parameter("conv1.weight").detach()[[3, 1]].cpu().numpy()
        assert found.dtype == np.float32 and np.array_equal(found, THIRDS.astype(np.float32))
        assert desk.plain.get_parameter("fc1.bias").detach()[[3, 0]].tolist() == [float(np.float32(1 / 3)), 6.0]
        before = desk.state()
        with pytest.raises(Invalid, match="of type float32, which cannot hold them all"):
            desk.do(OverrideBiases("fc1", (0,), [1e39]))
        assert differences(before, desk.state()) == []
