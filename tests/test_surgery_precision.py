"""Neurons that come, go and move in float32 and under autocast: compared with what must be so, as in float64.

Networks are trained in one of the two and asked in both.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from graybox.errors import Refused
from graybox.neuron_ops import AddNeurons, Freeze, NeuronEdit, Reinitialize, RemoveNeurons, Zerofy
from graybox.plan import Plan
from graybox.structure.change import Change
from tests.precision_cases import (
    AUTOCAST,
    DEVICES,
    PRECISIONS,
    PreciseDesk,
    Precision,
    check_differs,
    check_same,
    full_precision,  # noqa: F401
)
from tests.small_networks import ELEMENTWISE_OPTIMIZERS, bits, differences, one_thread  # noqa: F401
from tests.structure_oracles import consumed, difference, put, tensors
from tests.surgery_cases import addition, check_followed, optimizer_state, removal, sorting
from tests.test_surgery_structure import fresh_state

# A layer of each that has neurons to lose, alone or together with others.
LAYERS = {
    "Chain": "conv2",  # flattened from 2 x 2 positions
    "Residual": "stem",
    "Dense": "stem",
    "UNet": "up",  # a transposed convolution
    "Depthwise": "depthwise.0",
    "Grouped": "conv2.0",
    "Shared": "left",
    "Chain1d": "conv1",
    "Chain3d": "conv1",
    "Autoencoder": "image",
    "FlatNorm": "conv",
    "FeaturesLast": "mix",
    "GroupNorms": "conv2",
    "MlpLayerNorm": "fc2",
    "HeadSizeFixed": "value",
    "Transformer": "layer.linear1",
    "BagOfWords": "embed",
    "TiedEmbedding": "embed",
}
GROWING = [
    "Chain", "Dense", "UNet", "Grouped", "Chain1d", "Autoencoder", "HeadSizeFixed", "TiedEmbedding", "MlpLayerNorm",
]  # fmt: skip
SORTED = ["Residual", "Depthwise", "Dense", "Chain3d", "FeaturesLast", "FlatNorm", "Transformer", "BagOfWords"]
UNDONE = ["Residual", "Depthwise", "Transformer"]
PRUNED = sorted(set(LAYERS) - {"Chain1d", "FlatNorm", "TiedEmbedding"})  # they are among the others
OPTIMIZERS = list(ELEMENTWISE_OPTIMIZERS)


def cases(topologies: Any, shift: int) -> list[Any]:
    """Each topology, trained in float32 and under autocast in turn, with another optimizer for each kind of edit."""
    found = []
    for device in DEVICES:
        for number, topology in enumerate(topologies):
            precision = Precision(device, autocast=(number + shift) % 2 == 0)
            optimizer = OPTIMIZERS[(number * 3 + shift) % len(OPTIMIZERS)]
            found.append(pytest.param(topology, precision, optimizer, id=f"{topology}-{precision}-{optimizer}"))
    return found


def opened(topology: str, precision: Precision, optimizer: str) -> PreciseDesk:
    return PreciseDesk(topology, precision, ELEMENTWISE_OPTIMIZERS[optimizer], layer=LAYERS[topology])


def many_removed(desk: PreciseDesk) -> Plan:
    """Half of the layer's neurons, so that it shows; or as many as must go together."""
    count = desk.network.find_layer(desk.layer)[1].neuron_count
    half = RemoveNeurons(desk.layer, tuple(range(0, count, 2)))
    try:
        return desk.surgeon.plan(half)
    except Refused:
        return desk.planned(removal)


def moments(desk: PreciseDesk) -> Any:
    return optimizer_state(desk.on_cpu())


def check_goes_on(desk: PreciseDesk) -> None:
    """A step under autocast, and a step that a gradient scaler scales."""
    device = desk.precision.device
    before = {name: bits(p) for name, p in desk.network.named_parameters()}
    desk.precision = Precision(device, autocast=True)
    desk.train()
    scaler = torch.amp.GradScaler(device, init_scale=256.0)
    desk.backward(scaler)
    scaler.step(desk.optimizer)
    scaler.update()
    assert scaler.get_scale() == 256, "no step was skipped"
    parameters = dict(desk.network.named_parameters())
    assert all(bool(p.isfinite().all()) for p in parameters.values())
    assert all(p.dtype is torch.float32 for p in parameters.values())
    assert all(bits(p) != before[name] for name, p in parameters.items() if p.grad is not None and p.grad.any())


@pytest.mark.parametrize(("topology", "precision", "optimizer"), cases(PRUNED, 0))
def test_without_neurons_the_network_is_the_masked_one(topology: str, precision: Precision, optimizer: str) -> None:
    desk = opened(topology, precision, optimizer)
    plan = many_removed(desk)
    assert plan.change is not None
    desk.rely_on(plan.change)
    expected, before = desk.answers(desk.without(plan.change)), moments(desk)
    check_differs(desk.answers(), expected)
    desk.surgeon.apply(plan, seed=1)
    check_same(desk.answers(), expected)
    check_followed(plan, before, desk.on_cpu(), fresh_state(desk))
    check_goes_on(desk)


@pytest.mark.parametrize(("topology", "precision", "optimizer"), cases(GROWING, 1))
def test_with_new_neurons_the_function_is_the_same(topology: str, precision: Precision, optimizer: str) -> None:
    desk = opened(topology, precision, optimizer)
    plan = addition(desk)
    assert plan.change is not None
    expected, before = desk.answers(), moments(desk)
    desk.surgeon.apply(plan, seed=1)
    check_same(desk.answers(), expected)
    check_differs(desk.answers(heard(desk, plan.change)), expected)
    check_followed(plan, before, desk.on_cpu(), fresh_state(desk))
    check_goes_on(desk)


def heard(desk: PreciseDesk, change: Change) -> nn.Module:
    """A copy in which what consumes the new neurons does listen to them."""
    copied = copy.deepcopy(desk.plain)
    with torch.no_grad():
        for name, axis in consumed(copied, change).items():
            weight = tensors(copied)[name]
            weight.index_fill_(axis.axis, torch.from_numpy(axis.added).to(weight.device), 10.0)
    return copied


@pytest.mark.parametrize(("topology", "precision", "optimizer"), cases(SORTED, 2))
def test_in_another_order_the_function_is_the_same(topology: str, precision: Precision, optimizer: str) -> None:
    desk = opened(topology, precision, optimizer)
    plan = sorting(desk)
    assert plan.change is not None
    desk.rely_on(plan.change)
    expected, before = desk.answers(), moments(desk)
    check_differs(desk.answers(mixed_up(desk, plan.change)), expected)
    desk.surgeon.apply(plan, seed=1)
    check_same(desk.answers(), expected)
    check_followed(plan, before, desk.on_cpu(), {})
    check_goes_on(desk)


def mixed_up(desk: PreciseDesk, change: Change) -> nn.Module:
    """A copy in which what consumes the neurons expects them in their new order already."""
    copied = copy.deepcopy(desk.plain)
    for name, axis in consumed(copied, change).items():
        old = tensors(copied)[name].detach()
        put(copied, name, old.index_select(axis.axis, torch.from_numpy(axis.source).to(old.device)))
    return copied


# -- new entries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", AUTOCAST, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "SGD dampening", "Adam", "AdamW fused", "NAdam", "RAdam", "Adamax", "Adagrad decay", "Adadelta", "RMSprop all",
        "Rprop", "ASGD",
    ],
)  # fmt: skip
def test_new_entries_are_trained_as_by_a_fresh_optimizer(name: str, precision: Precision) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    desk = PreciseDesk("Chain", precision, make)
    desk.do(AddNeurons("conv1", count=2))
    rows, columns = (desk.plain.get_parameter(f"{name}.weight") for name in ("conv1", "conv2"))
    new = rows[-2:], columns[:, -2:]
    leaves = [nn.Parameter(part.detach().clone()) for part in new]
    fresh = make(leaves)
    for step in range(3):
        desk.backward()
        assert rows.grad is not None and columns.grad is not None
        gradients = rows.grad[-2:], columns.grad[:, -2:]
        assert bool(gradients[0].any()) is (step > 0), "what comes in has nothing to learn from at first"
        assert bool((gradients[1].abs().amax((0, 2, 3)) > 0).all()), "what goes out learns at once"
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient.clone()
        desk.optimizer.step()
        fresh.step()
        for leaf, part in zip(leaves, (rows[-2:], columns[:, -2:]), strict=True):
            # One implementation of an optimizer may round once more than another.
            eps = torch.finfo(torch.float32).eps
            torch.testing.assert_close(part, leaf, rtol=4 * eps, atol=4 * eps * float(leaf.detach().abs().max()))


# -- what is measured before, and taken back ---------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize(
    ("topology", "edit"),
    [
        ("MlpLayerNorm", RemoveNeurons("fc1", (1, 2), allow_inexact=True)),
        ("GroupNorms", RemoveNeurons("conv3", (0, 1, 2, 3), allow_inexact=True)),
        ("Chain", RemoveNeurons("conv1", (0, 2))),
        ("Chain", Zerofy("conv1", (0, 2))),
        ("Chain", Reinitialize("fc1", (0, 1, 2, 3))),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_preview_measures_what_the_edit_will_change(topology: str, edit: NeuronEdit, precision: Precision) -> None:
    """All within one autocast region, in which weights are converted once and kept."""
    desk = PreciseDesk(topology, precision)
    with precision.forward():
        before = desk.network(desk.x).detach().double()
        measured = desk.surgeon.preview(desk.surgeon.plan(edit), desk.x, seed=5)
        assert torch.equal(desk.network(desk.x).double(), before)
        desk.do(edit, seed=5)
        after = desk.network(desk.x).detach().double()
    assert measured.relative_to_largest >= precision.visible
    assert abs(measured.relative_to_largest - difference(after, before)) <= precision.tolerance


@pytest.mark.parametrize(("topology", "precision", "optimizer"), cases(UNDONE, 3))
def test_undone_edits_leave_every_bit_as_it_was(topology: str, precision: Precision, optimizer: str) -> None:
    desk = opened(topology, precision, optimizer)
    name = desk.layer
    done: list[Any] = []
    with precision.forward():  # an edit may be made within a region, too

        def do(plan: Plan) -> None:
            done.append((desk.network(desk.x).detach(), desk.state(), desk.surgeon.apply(plan, 4)))

        do(desk.surgeon.plan(Freeze(name, (1,))))
        do(desk.surgeon.plan(Reinitialize(name, (0,), zero_outgoing=topology == "Transformer")))
        do(desk.surgeon.plan(Zerofy(name, (1,))))
        do(many_removed(desk))
        do(addition(desk))
        do(sorting(desk))
        for answer, before, applied in reversed(done):
            assert differences(before, desk.state())
            desk.undo(applied)
            assert differences(before, desk.state()) == [], str(applied.plan)
            assert torch.equal(desk.network(desk.x), answer)
    check_goes_on(desk)
