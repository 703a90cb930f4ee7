"""Whole or not at all: whatever fails midway, everything is as it was, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from graybox import edits_structure
from graybox.neuron_ops import AddNeurons, NeuronEdit, OverrideWeights, Reinitialize, RemoveNeurons, SortByStat, Zerofy
from tests.small_networks import differences, one_thread  # noqa: F401
from tests.surgery_cases import Desk, failing, values

EDITS: list[NeuronEdit] = [
    RemoveNeurons("conv1", (0, 2)),
    AddNeurons("conv1", count=2),
    SortByStat("conv1", statistic="weight_norm"),
    Reinitialize("conv1", (0, 2), zero_outgoing=True),
    Zerofy("conv1", (1,)),
    OverrideWeights("fc1", (0,), np.ones((1, 24))),
]
# What an edit calls on its way, and how often at least.
PLACES: dict[str, Callable[[Desk], tuple[Any, str]]] = {
    "the optimizer's exchange": lambda desk: (desk.wrapper, "exchange"),
    "the optimizer's renewal": lambda desk: (desk.wrapper, "renew_at"),
    "the statistics": lambda desk: (desk.network.find_layer("conv1")[1].records, "carry"),
    "their reset": lambda desk: (desk.network.find_layer("conv1")[1].records, "reset"),
    "the structure": lambda desk: (desk.network.structure, "commit"),
    "the flags": lambda desk: (desk.wrapper, "refresh"),
    "the wiring": lambda desk: (desk.network, "rewire"),
}


def identities(desk: Desk) -> dict[str, int]:
    return {name: id(value) for name, value in desk.network.named_parameters()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.kind)
def test_a_failure_anywhere_changes_nothing(edit: NeuronEdit, place: str) -> None:
    for after in (0, 2, 5):
        desk = Desk("Chain")
        desk.do(Reinitialize("conv1", (1,)))
        desk.train()
        plan = desk.surgeon.plan(edit)
        before, same, gradients = desk.state(), identities(desk), [p.grad for p in desk.network.parameters()]
        target, name = PLACES[place](desk)
        try:
            with failing(target, name, after):
                desk.surgeon.apply(plan, 1)
        except RuntimeError as error:
            assert "full of snow" in str(error)
        else:
            return  # it is not called so often
        assert differences(before, desk.state()) == [], f"{place}, call {after}"
        assert identities(desk) == same, "the very same parameters are back"
        assert all(a is b for a, b in zip(gradients, [p.grad for p in desk.network.parameters()], strict=True))
        # And all goes on as if nothing had been tried.
        desk.do(edit)
        desk.train()


@pytest.mark.parametrize("edit", EDITS[:3], ids=lambda edit: edit.kind)
def test_a_failing_undo_changes_nothing_either(edit: NeuronEdit) -> None:
    desk = Desk("Chain")
    original = desk.state()
    applied = desk.do(edit)
    before = desk.state()
    with failing(desk.network, "rewire", 0), pytest.raises(RuntimeError, match="snow"):
        desk.undo(applied)
    assert differences(before, desk.state()) == []
    desk.undo(applied)
    assert differences(original, desk.state()) == []


def test_a_listener_that_raises_stops_the_edit() -> None:
    desk = Desk("Chain")
    before = desk.state()

    def listener(model: object) -> None:
        raise ValueError("not today")

    desk.network.register_hook_fn_for_architecture_change(listener)
    with pytest.raises(ValueError, match="not today"):
        desk.do(RemoveNeurons("conv1", (0,)))
    assert differences(before, desk.state()) == []


def test_an_initialisation_that_raises_stops_the_edit() -> None:
    desk = Desk("Chain")

    def broken(layer: Any) -> None:
        torch.nn.init.zeros_(layer.weight)
        raise ValueError("not today")

    desk.network.find_layer("conv1")[1].register_initialization(broken)
    before = desk.state()
    for edit in (Reinitialize("conv1", (0,)), AddNeurons("conv1", count=1)):
        with pytest.raises(ValueError, match="not today"):
            desk.do(edit)
        assert differences(before, desk.state()) == []


def test_new_tensors_are_made_before_anything_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk("Chain")
    before = values(desk.network)
    made = 0
    original = edits_structure.selected

    def out_of_memory(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made == 5:
            assert all(torch.equal(before[name], value) for name, value in values(desk.network).items())
            raise MemoryError
        return original(*arguments, **options)

    monkeypatch.setattr(edits_structure, "selected", out_of_memory)
    with pytest.raises(MemoryError):
        desk.do(RemoveNeurons("conv1", (0,)))
    assert all(torch.equal(before[name], value) for name, value in values(desk.network).items())
