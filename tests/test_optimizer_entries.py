from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from graybox.errors import Invalid, NotFound, Refused
from graybox.optimizer_with_ops import OptimizerWithOps
from tests.optimizer_oracles import ALL, COUPLING, OneParameter, ScalarOracle, exchanged, per_entry
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    bits,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
)


@pytest.mark.parametrize("name", ALL)
def test_a_region_starts_anew_and_comes_back(name: str) -> None:
    make = ALL[name]
    model = OneParameter((4, 3, 2))
    optimizer, wrapper, _ = operated(model, make)
    oracle = ScalarOracle(model.p0, make)
    where = {0: torch.tensor([3, 1]), 2: torch.tensor([1])}
    inside = [(row, column, 1) for row in (3, 1) for column in range(3)]

    def step(seed: int) -> None:
        give_gradients(model, seed)
        optimizer.step()
        oracle.step(model.p0.grad)

    for seed in range(6):
        step(seed)
    kept, young = wrapper.entries_at(model.p0, where), wrapper.young(model.p0)
    for key, value in kept.items():
        assert torch.equal(value, optimizer.state[model.p0][key][[3, 1]][:, :, [1]])
    before = {key: value.clone() for key, value in per_entry(optimizer, model.p0).items()}
    wrapper.renew_at(model.p0, where)
    wrapper.put_entries_at(model.p0, where, kept)  # at once: as if nothing had been
    assert wrapper.young(model.p0) == young == []
    for key, value in per_entry(optimizer, model.p0).items():
        assert bits(value) == bits(before[key])
    wrapper.renew_at(model.p0, where)
    for place in inside:
        oracle.renew(place, model.p0[place])
    for seed in range(6, 12):
        step(seed)
        torch.testing.assert_close(model.p0.detach(), oracle.values(), rtol=1e-9, atol=1e-12)
    held = wrapper.young(model.p0)
    wrapper.put_young(model.p0, [])
    assert wrapper.young(model.p0) == []
    wrapper.put_young(model.p0, held)
    for seed in range(12, 15):
        step(seed)
    torch.testing.assert_close(model.p0.detach(), oracle.values(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_before_the_first_step_and_without_a_gradient(name: str) -> None:
    make = ALL[name]
    generator = torch.Generator().manual_seed(0)
    model = OneParameter((3, 2), (4,))
    # In groups of their own: torch's fused SGD cannot make one momentum later than another within a group.
    optimizer = make([{"params": [model.p0]}, {"params": [model.p1]}])
    wrapper = OptimizerWithOps(optimizer, model)
    assert wrapper.entries(model.p1, 0, torch.tensor([1])).keys() <= {"sum"}  # Adagrad makes its own at once
    model.p1 = exchanged(wrapper, model.p1, 0, [3, -1, 0], generator)
    fresh = nn.Parameter(model.p1.detach().clone())
    plain_optimizer = make([fresh])
    model.p0.grad = torch.ones_like(model.p0)
    optimizer.step()  # p1 has no gradient yet
    model.p1 = exchanged(wrapper, model.p1, 0, [2, 0, 1], generator)
    fresh.data = fresh.data[[2, 0, 1]]
    assert wrapper.state_dict() == []
    for step in range(3):
        give_gradients(model, step)
        assert model.p1.grad is not None
        fresh.grad = model.p1.grad.clone()
        optimizer.step()
        plain_optimizer.step()
        assert bits(model.p1) == bits(fresh)
    late = wrapper.entries(model.p1, 0, torch.tensor([0]))
    wrapper.put_entries(model.p1, 0, torch.tensor([0]), {})  # kept before the first step: starts anew
    again = wrapper.entries(model.p1, 0, torch.tensor([0]))
    assert late.keys() == again.keys()


def test_entries_that_have_no_place_are_refused() -> None:
    model = OneParameter((2, 3))
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS["Adam"])
    give_gradients(model, 0)
    optimizer.step()
    row, kept = torch.tensor([1]), optimizer.state[model.p0]["exp_avg"].clone()
    with pytest.raises(Invalid, match="keeps no 'momentum_buffer' for the entries of this parameter; it keeps exp_avg"):
        wrapper.put_entries(model.p0, 0, row, {"momentum_buffer": torch.zeros(1, 3)})
    with pytest.raises(Invalid, match=r"'exp_avg' has the shape \(3,\) where \(1, 3\) is right"):
        wrapper.put_entries(model.p0, 0, row, {"exp_avg": torch.zeros(3)})
    assert torch.equal(optimizer.state[model.p0]["exp_avg"], kept)


@pytest.mark.parametrize("name", COUPLING)
def test_where_entries_are_coupled_nothing_is_kept_and_nothing_put_back(name: str) -> None:
    model = OneParameter((3, 2))
    optimizer, wrapper, _ = operated(model, COUPLING[name])
    give_gradients(model, 0)
    before = model.p0.detach().clone()

    def closure() -> torch.Tensor:
        loss = model.p0.square().sum()
        model.p0.grad = 2 * model.p0.detach()
        return loss.detach()

    optimizer.step(closure)  # type: ignore[arg-type]
    state = {key: str(value) for key, value in optimizer.state[model.p0].items()}
    assert state and bits(before) != bits(model.p0)
    row = torch.tensor([1])
    kept = wrapper.entries(model.p0, 0, row)
    assert kept == {}
    wrapper.put_entries(model.p0, 0, row, kept)
    assert {key: str(value) for key, value in optimizer.state[model.p0].items()} == state


def test_indices_that_the_parameter_does_not_have_are_named() -> None:
    model = OneParameter((3, 2))
    optimizer, wrapper, _ = operated(model, ALL["Adam"])
    give_gradients(model, 0)
    optimizer.step()
    with pytest.raises(NotFound, match="no index 2 along axis 1: it has 2, numbered from 0"):
        wrapper.renew(model.p0, 1, torch.tensor([0, 2]))
    assert bool((optimizer.state[model.p0]["exp_avg"] != 0).all()) and wrapper.young(model.p0) == []


# -- keeping -------------------------------------------------------------------------------------------


def test_young_entries_go_through_json_and_arrays() -> None:
    model = OneParameter((4, 3))
    optimizer, wrapper, _ = operated(model, ALL["NAdam"])
    for step in range(3):
        give_gradients(model, step)
        optimizer.step()
        wrapper.renew(model.p0, step % 2, torch.tensor([step]))
    young = wrapper.young(model.p0)
    assert len(young) == 3 and any("across" in kept for kept in young)
    as_text = json.dumps(young, default=lambda tensor: tensor.tolist())
    wrapper.put_young(model.p0, [])
    wrapper.put_young(
        model.p0,
        [
            {**kept, "scalars": {key: torch.tensor(value) for key, value in kept["scalars"].items()}}
            for kept in json.loads(as_text)
        ],
    )
    assert json.dumps(wrapper.young(model.p0), default=lambda tensor: tensor.tolist()) == as_text


def test_what_earlier_versions_kept_is_read() -> None:
    """They kept rows and columns that overlap, of which the later one counts."""
    model = OneParameter((3, 2))
    optimizer, wrapper, _ = operated(model, ALL["Adam"])
    give_gradients(model, 0)
    optimizer.step()
    rows = {"axis": 0, "indices": torch.tensor([0, 1]), "steps": 5, "scalars": {"step": torch.tensor(5.0)}}
    column = {"axis": 1, "indices": torch.tensor([1]), "steps": 2, "scalars": {"step": torch.tensor(2.0)}}
    wrapper.load_state_dict([{"parameter": "p0", **rows}, {"parameter": "p0", **column}])
    found = [{k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in e.items()} for e in wrapper.state_dict()]
    assert [(e["steps"], e["axis"], e["indices"]) for e in found] == [(5, 0, [0, 1]), (2, 1, [1])]
    assert found[0]["across"] == {"1": torch.tensor([0])} and "across" not in found[1]
    give_gradients(model, 1)
    optimizer.step()
    assert [float(entry["scalars"]["step"]) for entry in wrapper.state_dict()] == [6.0, 3.0]


def test_young_entries_of_a_parameter_that_is_not_there_are_refused() -> None:
    model = OneParameter((3, 2))
    _, wrapper, _ = operated(model, ALL["Adam"])
    with pytest.raises(Invalid, match="young entries of 'weight', which is no parameter of this network"):
        wrapper.load_state_dict([{"parameter": "weight", "axis": 0, "indices": [0], "steps": 0, "scalars": {}}])


def test_only_what_the_optimizer_holds_can_be_young() -> None:
    model = OneParameter((3, 2), (2,))
    wrapper = OptimizerWithOps(ALL["Adam"]([model.p1]), model)
    young = [{"axis": 0, "indices": torch.tensor([0]), "steps": 0, "scalars": {}}]
    with pytest.raises(Refused, match="does not hold"):
        wrapper.put_young(model.p0, young)
    with pytest.raises(Refused, match="does not hold"):
        wrapper.put_young_at(model.p0, {0: torch.tensor([1])}, young)
    wrapper.put_young(model.p0, [])


def test_within_a_region_only_those_are_young_that_are_put_there() -> None:
    model = OneParameter((3, 4))
    optimizer, wrapper, _ = operated(model, ALL["Adam"])
    give_gradients(model, 0)
    optimizer.step()
    wrapper.renew(model.p0, 0, torch.tensor([0, 2]))
    region = {0: torch.tensor([2, 1]), 1: torch.tensor([3, 0])}
    kept = wrapper.young_at(model.p0, region)
    assert [(entry["axis"], entry["indices"].tolist()) for entry in kept] == [(0, [0])]  # row 2 is the first in it
    before = wrapper.young(model.p0)
    wrapper.put_young_at(model.p0, region, [])
    held = torch.zeros(3, 4)
    for entry in wrapper.young(model.p0):
        columns = entry.get("across", {"1": torch.arange(4)})["1"]
        held[entry["indices"][:, None], columns] += 1
    assert held.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]]
    wrapper.put_young_at(model.p0, region, kept)
    assert str(wrapper.young(model.p0)) == str(before)
