"""What an edit removed or overwrote comes back with its bits; everything else keeps what it learnt since."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import GrayboxError, Invalid
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
from graybox.surgery import Applied
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    bits,
    differences,
    one_thread,  # noqa: F401
)
from tests.structure_oracles import check_attributes
from tests.surgery_cases import Desk

SMALL = ["Chain", "Residual", "Dense", "Depthwise", "Grouped", "Shuffled", "Transformer", "UNet", "Shared", "Mlp"]
OPTIMIZERS = list(ELEMENTWISE_OPTIMIZERS)


def some_edit(desk: Desk, chance: random.Random) -> NeuronEdit:
    """Any edit of any layer; whether it is possible is another matter."""
    name, layer = chance.choice(desk.network.named_layers())
    count, places = layer.neuron_count, layer.incoming_places
    some = tuple(chance.sample(range(count), chance.randint(1, max(1, min(3, count - 1)))))
    incoming = tuple(chance.sample(range(places), min(places, chance.randint(1, 2))))
    rest = [size for axis, size in enumerate(layer.weight.shape) if axis != layer.out_axis]
    numbers = np.random.default_rng(chance.randrange(1000))
    return chance.choice(
        [
            Freeze(name, some),
            Unfreeze(name, some),
            FreezeBias(name, some),
            FreezeIncoming(name, incoming),
            SetLearningRate(name, some, rate=chance.choice([0.0, 0.5, 2.0])),
            Reinitialize(name, some, zero_outgoing=chance.random() < 0.5),
            Reinitialize(name, some, perturbation_ratio=0.3),
            Zerofy(name, some, incoming if chance.random() < 0.5 else ()),
            Zerofy(name, some, from_frozen=True, from_older=True),
            OverrideWeights(name, some, numbers.normal(size=(len(some), *rest))),
            OverrideBiases(name, some, numbers.normal(size=len(some))),
            SortByStat(name, statistic=chance.choice(["trigger_rate", "weight_norm", "age"])),
            RemoveNeurons(name, some, allow_inexact=True),
            AddNeurons(name, count=chance.randint(1, 4), allow_inexact=True),
        ]
    )


def edited(desk: Desk, chance: random.Random, wanted: int) -> Applied:
    """One edit that is possible; those that are not must change nothing."""
    for _ in range(200):
        edit = some_edit(desk, chance)
        try:
            plan = desk.surgeon.plan(edit)
        except GrayboxError:
            continue
        return desk.surgeon.apply(plan, wanted)
    raise AssertionError("nothing can be done to this network")


@settings(max_examples=4, deadline=None)
@given(
    topology=st.sampled_from(SMALL), optimizer=st.sampled_from(OPTIMIZERS), seed=st.integers(0, 10_000),
    steps=st.integers(0, 2),
)  # fmt: skip
def test_any_thirty_edits_are_undone_to_the_bit(topology: str, optimizer: str, seed: int, steps: int) -> None:
    desk, chance = Desk(topology, ELEMENTWISE_OPTIMIZERS[optimizer], steps=steps), random.Random(seed)
    done = []
    for number in range(30):
        before = desk.state()
        done.append((before, edited(desk, chance, number)))
    for before, applied in reversed(done):
        desk.undo(applied)
        assert differences(before, desk.state()) == [], str(applied.plan)
    desk.train()


@settings(max_examples=4, deadline=None)
@given(topology=st.sampled_from(SMALL), optimizer=st.sampled_from(OPTIMIZERS), seed=st.integers(0, 10_000))
def test_with_training_between_everything_fits_and_goes_on(topology: str, optimizer: str, seed: int) -> None:
    desk, chance = Desk(topology, ELEMENTWISE_OPTIMIZERS[optimizer]), random.Random(seed)
    done: list[tuple[dict[str, torch.Size], Applied]] = []
    for number in range(12):
        done.append((shapes(desk), edited(desk, chance, number)))
        check_attributes(desk.plain)
        desk.train()
    while done:
        before, applied = done.pop()
        trained = desk.state()
        desk.undo(applied)
        assert shapes(desk) == before
        check_attributes(desk.plain)
        check_only_undone(applied, trained, desk)
        desk.train()


def shapes(desk: Desk) -> dict[str, torch.Size]:
    found = {name: value.shape for name, value in desk.network.state_dict().items()}
    for name, layer in desk.network.named_layers():
        assert len(layer.frozen) == len(layer.neuron_learning_rate) == len(layer.bias_frozen) == layer.neuron_count
        assert len(layer.incoming_frozen) == len(layer.incoming_learning_rate) == layer.incoming_places, name
        assert layer.records.neurons == layer.neuron_count
    for parameter, state in desk.optimizer.state.items():
        assert all(v.shape == parameter.shape for v in state.values() if isinstance(v, torch.Tensor) and v.dim())
    return found


def check_only_undone(applied: Applied, trained: dict[str, Any], desk: Desk) -> None:
    """Of what the edit did not touch, all is as trained."""
    after = desk.state()
    touched = {touch.tensor for touch in applied.plan.touches}
    for name, value in trained.items():
        kind, _, rest = name.partition("/")
        tensor = rest.rpartition("/")[0] if kind == "optimizer" else rest
        if kind in ("model", "optimizer") and tensor not in touched and not shared(desk, tensor, touched):
            assert differences({name: value}, {name: after[name]}) == [], name
    change = applied.plan.change
    if change is None:
        return
    for axis in change.axes:
        # Entries that were there before and after: as they were trained.
        kept = np.flatnonzero(axis.source >= 0)
        others = [other for other in change.axes if other.tensor == axis.tensor]
        if len(others) == 1:
            old = torch.from_numpy(axis.source[kept])
            name = f"model/{axis.tensor}"
            now = after[name].index_select(axis.axis, old)
            then = trained[name].index_select(axis.axis, torch.from_numpy(kept))
            assert bits(now) == bits(then), axis.tensor


def shared(desk: Desk, tensor: str, touched: set[str]) -> bool:
    """Whether one of the touched tensors is the same under another name."""
    found = {**dict(desk.network.named_parameters(remove_duplicate=False)), **dict(desk.network.named_buffers())}
    return any(found.get(tensor) is found.get(other) for other in touched)


@pytest.mark.parametrize("optimizer", ["Adam", "Adagrad decay", "SGD dampening", "ASGD"])
def test_what_was_removed_is_back_with_its_bits_after_training(optimizer: str) -> None:
    desk = Desk("Chain", ELEMENTWISE_OPTIMIZERS[optimizer])
    desk.do(Freeze("conv1", (2,)))
    desk.do(Reinitialize("conv1", (0, 2)))  # its entries are young
    desk.train(2)
    layer: Any = desk.network.find_layer("conv1")[1]
    before, rates = desk.state(), layer.records.take([2])
    applied = desk.do(RemoveNeurons("conv1", (2,)))
    desk.train(3)
    trained = desk.state()
    desk.undo(applied)
    after = desk.state()
    for name in ("model/conv1.weight", "model/conv1.bias", "model/bn1.weight", "model/bn1.running_var"):
        assert bits(after[name][2]) == bits(before[name][2]), name
        assert bits(after[name][[0, 1, 3]]) == bits(trained[name][[0, 1, 2]]), name
    assert bits(trained["model/conv1.weight"][[0, 1, 2]]) != bits(before["model/conv1.weight"][[0, 1, 3]])
    for name in [n for n in before if n.startswith("optimizer/conv1.weight/") and before[n].dim() > 1]:
        assert bits(after[name][2]) == bits(before[name][2])
        assert bits(after[name][[0, 1, 3]]) == bits(trained[name][[0, 1, 2]])
    assert layer.frozen.tolist()[2] and layer.frozen.sum() == 1
    found = layer.records.take([2])
    # How full a layer's probe is is one number for all its neurons.
    own = [key for key in rates if not key.endswith("/written")]
    assert own and all(np.array_equal(rates[key], found[key], equal_nan=True) for key in own)
    desk.train(2)


def test_what_was_overwritten_is_back_with_its_bits_after_training() -> None:
    desk = Desk("Chain")
    before = desk.state()
    applied = desk.do(OverrideWeights("fc1", (1,), np.ones((1, desk.plain.get_parameter("fc1.weight").shape[1]))))
    desk.train(2)
    trained = desk.state()
    desk.undo(applied)
    after = desk.state()
    for name in ("model/fc1.weight", "optimizer/fc1.weight/exp_avg", "optimizer/fc1.weight/exp_avg_sq"):
        assert bits(after[name][1]) == bits(before[name][1])
        others = [i for i in range(after[name].shape[0]) if i != 1]
        assert bits(after[name][others]) == bits(trained[name][others])
    assert float(after["optimizer/fc1.weight/step"]) == float(trained["optimizer/fc1.weight/step"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_undoes_an_edit_holds_every_number_type_without_loss(dtype: torch.dtype) -> None:
    desk = Desk("Mlp", ELEMENTWISE_OPTIMIZERS["SGD nesterov"], dtype=dtype, steps=2)
    weight = desk.plain.get_parameter("fc1.weight")
    with torch.no_grad():
        weight[1, 0] = float("nan")
        weight[1, 1] = torch.finfo(dtype).tiny / 2
        weight[1, 2] = -0.0
    before = desk.state()
    done = [
        desk.do(edit)
        for edit in (
            Reinitialize("fc1", (1, 2)),
            RemoveNeurons("fc1", (0, 1)),
            SortByStat("fc2", statistic="weight_norm"),
        )
    ]
    for applied in reversed(done):
        desk.undo(applied)
    assert differences(before, desk.state()) == []


def test_an_undo_works_in_another_process() -> None:
    one, other = Desk("Residual"), Desk("Residual")
    plan = one.planned(lambda name, neurons: RemoveNeurons(name, neurons))
    before = one.state()
    applied = one.surgeon.apply(plan, 1)
    other.surgeon.apply(other.surgeon.plan(plan.edit), 1)
    written = json.dumps(applied.undo, allow_nan=False)
    line = other.surgeon.undo(json.loads(written), applied.arrays)
    assert line == f"Undid: {plan.summary()}"
    names = [name for name in before if not name.startswith("random/")]
    after = other.state()
    assert differences({n: before[n] for n in names}, {n: after[n] for n in names}) == []


def test_an_undo_without_its_arrays_is_refused_and_changes_nothing() -> None:
    desk = Desk("Chain")
    applied = desk.do(RemoveNeurons("conv1", (0,)))
    before = desk.state()
    with pytest.raises(Invalid, match="incomplete"):
        desk.surgeon.undo(applied.undo, {})
    assert differences(before, desk.state()) == []


def test_small_edits_need_no_arrays() -> None:
    desk = Desk("Chain")
    for edit in (Freeze("conv1", (1, 2)), SetLearningRate("conv1", rate=0.5), FreezeIncoming("conv2", (0,))):
        before = desk.state()
        applied = desk.do(edit)
        assert applied.arrays == {} and differences(before, desk.state())
        desk.undo(applied)
        assert differences(before, desk.state()) == []
