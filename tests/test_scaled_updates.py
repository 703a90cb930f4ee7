from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from graybox.errors import Invalid
from graybox.model_with_ops import NetworkWithOps
from graybox.newcomers import ELEMENTWISE
from graybox.scaled_updates import ScaledUpdates, scaled_update
from graybox.scalings import Scaling
from tests.optimizer_oracles import COUPLING, OneParameter, TwoLayers, exchanged, within_one_unit
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    ChainNet,
    bits,
    built,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
    rows_of,
    train_step,
)

WITHOUT_DECAY = {"Adam", "NAdam", "Adamax", "RMSprop", "Rprop", "Adagrad decay"}
FROZEN = {"conv1": [1, 3], "conv2": [0], "fc1": [2, 5], "fc2": [1]}


def freeze(model: NetworkWithOps) -> None:
    for name, neurons in FROZEN.items():
        model.find_layer(name)[1].frozen[neurons] = True


def frozen_bits(model: NetworkWithOps) -> list[bytes]:
    return [
        bits(rows) for name, neurons in FROZEN.items() for rows in rows_of(model, model.find_layer(name)[1], neurons)
    ]


def other_entries(model: NetworkWithOps) -> list[torch.Tensor]:
    found = []
    for name, neurons in FROZEN.items():
        layer = model.find_layer(name)[1]
        rest = [i for i in range(layer.neuron_count) if i not in neurons]
        found += rows_of(model, layer, rest)
    return found


def make_step(model: NetworkWithOps, optimizer: optim.Optimizer, x: torch.Tensor) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(x) - torch.tensor([3.0, -3.0, 0.5])).square().mean()
        loss.backward()
        return float(loss.detach())

    if isinstance(optimizer, optim.LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


def test_every_optimizer_that_is_told_to_work_entry_by_entry_is_tested() -> None:
    kinds = {type(make([nn.Parameter(torch.zeros(2))])) for make in ELEMENTWISE_OPTIMIZERS.values()}
    assert kinds == set(ELEMENTWISE)


@pytest.mark.parametrize("name", [*ELEMENTWISE_OPTIMIZERS, *COUPLING])
def test_frozen_neurons_keep_their_bits_over_100_steps_of_training(name: str) -> None:
    torch.manual_seed(0)
    model = built(ChainNet)
    optimizer, wrapper, _ = operated(model, {**ELEMENTWISE_OPTIMIZERS, **COUPLING}[name])
    xs = [ChainNet.example(6) for _ in range(4)]
    for i in range(5):
        make_step(model, optimizer, xs[i % 4])
    freeze(model)
    wrapper.refresh()
    before, others = frozen_bits(model), other_entries(model)
    statistics = model.bn1.running_mean.clone()  # type: ignore[union-attr, operator]
    for i in range(100 if name != "LBFGS" else 34):
        make_step(model, optimizer, xs[i % 4])
    assert frozen_bits(model) == before
    moved = sum(int((a != b).sum()) for a, b in zip(others, other_entries(model), strict=True))
    assert moved > 0.5 * sum(a.numel() for a in others)  # behind a dead ReLU, nothing moves
    assert bool((model.bn1.running_mean != statistics).all())  # type: ignore[union-attr]
    for name_ in FROZEN:
        model.find_layer(name_)[1].frozen[:] = False
    wrapper.refresh()
    make_step(model, optimizer, xs[0])
    assert sum(a != b for a, b in zip(before, frozen_bits(model), strict=True)) > 0


@pytest.mark.parametrize("name", ELEMENTWISE_OPTIMIZERS)
def test_a_freeze_changes_no_bit_of_the_other_neurons_updates(name: str) -> None:
    plain, model = built(ChainNet), built(ChainNet)
    plain_optimizer = ELEMENTWISE_OPTIMIZERS[name](plain.parameters())
    freeze(model)
    optimizer, _, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    before = frozen_bits(model)
    for step in range(100):
        # The same gradients for both: in training, others' gradients of course depend on what is frozen.
        give_gradients(plain, step)
        give_gradients(model, step)
        plain_optimizer.step()
        optimizer.step()
    assert frozen_bits(model) == before != frozen_bits(plain)
    assert [bits(t) for t in other_entries(model)] == [bits(t) for t in other_entries(plain)]
    if name in WITHOUT_DECAY:  # the optimizer's own state goes on; with weight decay it depends on the weights
        for p, q in zip(plain.parameters(), model.parameters(), strict=True):
            for key, value in plain_optimizer.state[p].items():
                assert torch.equal(value, optimizer.state[q][key]), key


def test_muon_leaves_frozen_rows_alone() -> None:
    if not hasattr(optim, "Muon"):
        pytest.fail("this version of torch has no Muon; the project needs one that does")
    torch.manual_seed(0)
    model = TwoLayers(bias=False)
    model.one.frozen[1] = True
    optimizer, _, _ = operated(model, lambda p: optim.Muon(p, lr=0.01))
    before = model.one.weight.detach().clone()
    for _ in range(20):
        train_step(model, optimizer, torch.randn(5, 3))
    assert torch.equal(model.one.weight[1], before[1]) and not torch.equal(model.one.weight[0], before[0])


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE_OPTIMIZERS if "foreach" not in n])
def test_a_closure_may_make_the_gradients_within_the_step(name: str) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    models = [TwoLayers(), TwoLayers()]
    models[1].load_state_dict(models[0].state_dict())
    kept = models[0].one.weight[1].detach().clone()
    pairs = [operated(m, make) for m in models]
    x = torch.randn(6, 3)
    for step in range(4):
        if step == 2:
            for model, (_, wrapper, _) in zip(models, pairs, strict=True):
                model.one.frozen[1] = True
                wrapper.refresh()
                kept = model.one.weight[1].detach().clone()
                wrapper.renew(model.one.weight, 0, torch.tensor([0]))
        train_step(models[0], pairs[0][0], x)

        def closure() -> torch.Tensor:
            loss: torch.Tensor = models[1](x).square().mean()
            loss.backward()
            return loss

        pairs[1][0].zero_grad(set_to_none=True)
        pairs[1][0].step(closure)  # type: ignore[arg-type]
    assert torch.equal(models[1].one.weight[1], kept)
    assert [bits(p) for p in models[0].parameters()] == [bits(p) for p in models[1].parameters()]


@settings(max_examples=60, deadline=None)
@given(
    rate=st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e-12]), st.floats(0, 4)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 10_000),
)
def test_a_scaled_update_is_rounded_once(
    rate: float, shape: list[int], dtype: torch.dtype, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(shape, generator=generator, dtype=dtype)
    unscaled = old + scale * torch.randn(shape, generator=generator, dtype=dtype)
    new = scaled_update(old, unscaled, torch.full((shape[0],), rate, dtype=torch.float64))
    assert new.dtype == dtype and within_one_unit(old, unscaled, rate, new)
    if rate == 0:
        assert bits(new) == bits(old)
    if rate == 1 and dtype is torch.float32 and scale == 1:
        assert bits(new) == bits(unscaled)


def test_nothing_gets_into_a_frozen_row_from_a_broken_update() -> None:
    old = torch.tensor([[1.0, -0.0], [1.0, 2.0]])
    broken = torch.full((2, 2), float("nan"))
    new = scaled_update(old, broken, torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert bits(new[0]) == bits(old[0]) and bool(new[1].isnan().all())


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(ELEMENTWISE_OPTIMIZERS)),
    rates=st.lists(st.floats(0, 3), min_size=4, max_size=4),
    inputs=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    before=st.integers(0, 5),
)
def test_a_neurons_learning_rate_scales_the_optimizers_own_update(
    name: str, rates: list[float], inputs: int, dtype: torch.dtype, before: int
) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    torch.manual_seed(0)
    model = TwoLayers(inputs).to(dtype)
    optimizer, _, _ = operated(model, make)
    for step in range(before):
        give_gradients(model, step)
        optimizer.step()
    twin = copy.deepcopy(model)
    unscaled = make(twin.parameters())
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        # Not by load_state_dict, which rounds NAdam's and ASGD's numbers per tensor to the parameter's type.
        if p in optimizer.state:
            unscaled.state[q] = copy.deepcopy(optimizer.state[p])
    old = copy.deepcopy(model.state_dict())
    for neuron, rate in enumerate(rates):
        model.one.set_per_neuron_learning_rate([neuron], rate)  # takes effect without a word to the optimizer
    for each in (model, twin):
        give_gradients(each, 99)
    optimizer.step()
    unscaled.step()
    for key in ("one.weight", "one.bias"):
        for neuron, rate in enumerate(rates):
            new = model.state_dict()[key][neuron]
            assert within_one_unit(old[key][neuron], twin.state_dict()[key][neuron], rate, new), (key, neuron)
    assert bits(model.two.weight) == bits(twin.two.weight)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):  # the moments follow the true gradient
        for key, value in unscaled.state[q].items():
            if isinstance(value, torch.Tensor) and key != "ax":
                assert torch.equal(value, optimizer.state[p][key]), key


# -- along several axes --------------------------------------------------------------------------------


class ScaledNet(OneParameter):
    """A network that says itself what is scaled, as one with freezes of incoming connections does."""

    scalings: tuple[tuple[int, torch.Tensor], ...] = ()

    def update_scalings(self) -> list[Scaling]:
        return [Scaling(self.p0, axis, factors) for axis, factors in self.scalings]


FACTORS = st.one_of(st.sampled_from([0.0, 1.0, 1.0, 0.5, 2.0]), st.floats(0, 3))


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from(list(ELEMENTWISE_OPTIMIZERS)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_scalings_of_rows_and_columns_multiply(
    data: st.DataObject, name: str, shape: list[int], dtype: torch.dtype
) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), max_size=4))
    scalings = [(axis, data.draw(st.lists(FACTORS, min_size=shape[axis], max_size=shape[axis]))) for axis in axes]
    model, plain = ScaledNet(tuple(shape), (2,), dtype=dtype), OneParameter(tuple(shape), (2,), dtype=dtype)
    model.scalings = tuple((axis, torch.tensor(factors, dtype=torch.float64)) for axis, factors in scalings)
    optimizer, _, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    plain_optimizer = ELEMENTWISE_OPTIMIZERS[name](plain.parameters())
    old = model.p0.detach().clone()
    for each in (model, plain):
        give_gradients(each, 1)
    optimizer.step()
    plain_optimizer.step()
    for place in np.ndindex(*shape):
        factors = [factors[place[axis]] for axis, factors in scalings if factors[place[axis]] != 1.0]
        before, unscaled, new = old[place], plain.p0.detach()[place], model.p0.detach()[place]
        if 0.0 in factors:
            assert bits(new) == bits(before)
        elif not factors:
            assert bits(new) == bits(unscaled)
        else:
            rate = float(np.prod(factors))
            tolerance = len(factors) * float(np.spacing(abs(rate * float(unscaled - before))))
            assert within_one_unit(before, unscaled, rate, new, tolerance)
    assert bits(model.p1) == bits(plain.p1)
    for key, value in plain_optimizer.state[plain.p0].items():
        if isinstance(value, torch.Tensor) and key != "ax":  # the moments follow the true gradient
            assert torch.equal(value, optimizer.state[model.p0][key]), key


@pytest.mark.parametrize("name", ELEMENTWISE_OPTIMIZERS)
def test_frozen_columns_and_rows_keep_their_bits_over_100_steps(name: str) -> None:
    model, plain = ScaledNet((4, 3)), OneParameter((4, 3))
    model.scalings = ((0, torch.tensor([1.0, 0.0, 1.0, 1.0])), (1, torch.tensor([1.0, 1.0, 0.0])))
    optimizer, _, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    plain_optimizer = ELEMENTWISE_OPTIMIZERS[name](plain.parameters())
    old = model.p0.detach().clone()
    for step in range(100):
        for each in (model, plain):
            give_gradients(each, step)
        optimizer.step()
        plain_optimizer.step()
    expected = plain.p0.detach().clone()
    expected[1], expected[:, 2] = old[1], old[:, 2]
    assert bits(model.p0) == bits(expected)


def test_scalings_follow_an_exchange() -> None:
    """The network's flags come later in the same edit; they are read before the next step."""
    model = ScaledNet((3, 2))
    model.scalings = ((0, torch.tensor([0.0, 1.0, 1.0])),)
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS["Adam"])
    give_gradients(model, 0)
    optimizer.step()
    model.p0 = exchanged(wrapper, model.p0, 0, [2, -1, 0], torch.Generator().manual_seed(0))
    model.scalings = ((0, torch.tensor([1.0, 1.0, 0.0])),)
    before = model.p0.detach().clone()
    give_gradients(model, 1)
    optimizer.step()
    assert (model.p0.detach() == before).all(dim=1).tolist() == [False, False, True]


def test_factors_that_do_not_fit_are_named() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    for axis, count in ((0, 2), (1, 3), (2, 2), (-1, 2)):
        with pytest.raises(Invalid, match=rf"\({count},\) factors along axis {axis} do not fit .* \(3, 2\)"):
            ScaledUpdates([Scaling(parameter, axis, torch.zeros(count))])


@pytest.mark.parametrize("name", ELEMENTWISE_OPTIMIZERS)
def test_a_networks_own_freezes_of_biases_and_incoming_connections(name: str) -> None:
    torch.manual_seed(0)
    model = TwoLayers(5, 4).double()
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    layer = model.one
    layer.frozen[0], layer.bias_frozen[1], layer.incoming_frozen[2], layer.incoming_learning_rate[3] = (
        True,
        True,
        True,
        0.5,
    )
    layer.neuron_learning_rate[3] = 0.25
    wrapper.refresh()
    twin = copy.deepcopy(model)
    plain_optimizer = ELEMENTWISE_OPTIMIZERS[name](twin.parameters())
    old = copy.deepcopy(model.state_dict())
    for each, its in ((model, optimizer), (twin, plain_optimizer)):
        give_gradients(each, 3)
        its.step()
    rows, columns = torch.tensor([0.0, 1, 1, 0.25]), torch.tensor([1.0, 1, 0, 0.5, 1])
    for key, factors in (("one.weight", rows[:, None] * columns), ("one.bias", rows * torch.tensor([1.0, 0, 1, 1]))):
        before, new, unscaled = old[key], model.state_dict()[key], twin.state_dict()[key]
        torch.testing.assert_close(new, before + factors * (unscaled - before), rtol=1e-13, atol=1e-16)
        assert torch.equal(new[factors == 0], before[factors == 0])
        assert torch.equal(new[factors == 1], unscaled[factors == 1])
    assert bits(model.two.weight) == bits(twin.two.weight)
