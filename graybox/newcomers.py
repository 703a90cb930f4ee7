"""Entries of a parameter that started anew among older ones: who they are, and for how long that matters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import optim

from graybox.entry_sets import EntrySet, Where
from graybox.errors import Invalid

ELEMENTWISE: tuple[type[optim.Optimizer], ...] = (
    optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax,
    optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Rprop, optim.ASGD,
)  # fmt: skip
"""Optimizers that treat every entry of a parameter alike and on its own."""

YOUNG_STEPS = 10_000
"""Where a step count counts for ever (ASGD, Adagrad with lr_decay): after so many steps, entries that started anew are
left to the main optimizer."""


def young_steps(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> int:
    """For how many steps entries that started anew need an optimizer of their own.

    0 where zeroed state is all a fresh optimizer has; 1 where only the first step differs. With betas: until the bias
    correction is within 5e-5 of 1, which the default betas reach after some 10,000 steps.
    """
    if isinstance(optimizer, (optim.RMSprop, optim.Adadelta, optim.Rprop)):
        return 0
    if isinstance(optimizer, optim.SGD):
        # The first momentum is the gradient itself; after zero momentum it is that too, but for the dampening.
        return 1 if group["momentum"] and group["dampening"] else 0
    if isinstance(optimizer, optim.Adagrad) and not group["lr_decay"]:
        return 0
    largest = max((float(beta) for beta in group.get("betas", ())), default=1.0)
    if largest >= 1.0:
        return YOUNG_STEPS
    return max(1, math.ceil(math.log(5e-5) / math.log(largest))) if largest > 0.0 else 1


def initial_value(optimizer: optim.Optimizer, group: Mapping[str, Any], key: str) -> float:
    """What torch.optim starts an entry's state `key` with."""
    if key == "sum":  # Adagrad takes it from how it was constructed, whatever the group says
        return float(optimizer.defaults.get("initial_accumulator_value", 0.0))
    if key == "step_size":
        return float(group["lr"])
    return 0.0


def begin_anew(optimizer: optim.Optimizer, parameter: torch.Tensor) -> None:
    """A parameter's whole state starts as in a fresh optimizer."""
    optimizer.state.pop(parameter, None)
    if isinstance(optimizer, optim.Adagrad):  # the others make it in the first step
        start = initial_value(optimizer, {}, "sum")
        fresh = optim.Adagrad([parameter], initial_accumulator_value=start, fused=optimizer.defaults.get("fused"))
        optimizer.state[parameter] = fresh.state[parameter]


def per_entry(value: object, parameter: torch.Tensor) -> bool:
    """Whether a value of an optimizer's state has one number for each entry of the parameter."""
    # A scalar parameter's step count has its shape too; neurons have at least one dimension.
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim() > 0


@dataclass
class Newcomers:
    """Entries of one parameter that started anew together.

    Their moments live in the main optimizer's state, in their places; only what is one number per tensor there (the
    step count) is kept here, in `scalars`, once they made a step. steps: how many they made.
    """

    entries: EntrySet
    steps: int = 0
    scalars: dict[str, Any] = field(default_factory=dict)

    def alike(self, other: Newcomers) -> bool:
        """Whether the two may be taken for one: as old, and with the same numbers to the bit."""
        if self.steps != other.steps or self.scalars.keys() != other.scalars.keys():
            return False
        pairs = [(value, other.scalars[key]) for key, value in self.scalars.items()]
        return all(torch.equal(torch.as_tensor(a).cpu(), torch.as_tensor(b).cpu()) for a, b in pairs)

    def with_entries(self, entries: EntrySet) -> Newcomers:
        """The same age elsewhere."""
        return Newcomers(entries, self.steps, self.scalars)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain values and tensors, a dict for each box of entries: "axis" and "indices" (int64), "across" for further
        axes if the entries do not span those (indices by axis, as text), "steps" and "scalars"."""
        found = []
        for where in self.entries.wheres():
            (axis, indices), *others = where.items() if where else [(0, torch.arange(self.entries.shape[0]))]
            kept: dict[str, Any] = {"axis": axis, "indices": indices.clone(), "steps": self.steps}
            if others:
                kept["across"] = {str(other): further.clone() for other, further in others}
            found.append({**kept, "scalars": copied(self.scalars)})
        return found

    @classmethod
    def from_dict(cls, shape: Sequence[int], kept: Mapping[str, Any]) -> Newcomers:
        """What `to_dicts` made, of a tensor of this shape. Raises NotFound for an entry that such a tensor lacks."""
        where: dict[int, torch.Tensor] = {int(kept["axis"]): torch.as_tensor(kept["indices"])}
        for axis, indices in kept.get("across", {}).items():
            where[int(axis)] = torch.as_tensor(indices)
        return cls(EntrySet.product(shape, where), int(kept["steps"]), copied(kept["scalars"]))


def settled(newcomers: Iterable[Newcomers]) -> list[Newcomers]:
    """Each entry once, in the latest that names it; those alike as one; in an order that depends on nothing else."""
    found: list[Newcomers] = []
    for each in newcomers:
        found = [old.with_entries(old.entries - each.entries) for old in found]
        twin = next((old for old in found if old.alike(each)), None)
        if twin is None:
            found.append(each)
        else:
            twin.entries = twin.entries | each.entries
    return in_order([each for each in found if len(each.entries)])


def in_order(newcomers: list[Newcomers]) -> list[Newcomers]:
    """The oldest first; those of one age by their entries."""
    if len(newcomers) > 1:
        newcomers.sort(key=lambda each: (-each.steps, each.entries.key()))
    return newcomers


def placed(newcomers: Iterable[Newcomers], shape: Sequence[int], where: Where) -> list[Newcomers]:
    """Newcomers of the region `where`, numbered by place in it, in the numbers of the whole tensor."""
    return [each.with_entries(each.entries.placed(shape, where)) for each in newcomers]


def check_elementwise(optimizer: optim.Optimizer) -> str:
    """Why entries of this optimizer's parameters cannot start anew one by one; empty where they can."""
    # The very class: what a subclass does to its entries nobody knows.
    if type(optimizer) not in ELEMENTWISE:
        known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
        return (
            f"{type(optimizer).__name__} couples the entries of a parameter, or is not known to treat them "
            f"one by one, so that no neuron can start anew in it; it can in {known}"
        )
    if any(group.get("differentiable") for group in optimizer.param_groups):
        return (
            f"{type(optimizer).__name__} was made with differentiable=True, which keeps a graph through its own steps, "
            "so that no neuron can start anew in it; make it without"
        )
    return ""


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, tensors included."""
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def check_entries(values: Mapping[str, torch.Tensor], state: Mapping[str, Any], like: torch.Tensor) -> None:
    """Raises Invalid where an optimizer's state has no place for these values, shaped as `like`."""
    for key, value in values.items():
        if key not in state:
            kept = ", ".join(state) or "nothing"
            raise Invalid(f"the optimizer keeps no {key!r} for the entries of this parameter; it keeps {kept}")
        if value.shape != like.shape:
            raise Invalid(f"{key!r} has the shape {tuple(value.shape)} where {tuple(like.shape)} is right")
