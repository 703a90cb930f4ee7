"""Where newcomers grow up: an optimizer of the main one's class steps them until the difference is gone.

Adam and its kin keep one step count per tensor. With a large one, the first updates of entries whose moments were just
zeroed would be several times a fresh optimizer's. So each step of the main optimizer is followed by one of ours on the
young entries alone, from their values before, and what comes out takes the place of what the main one made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from graybox.entry_sets import EntryIndex, EntrySet
from graybox.newcomers import Newcomers, copied, in_order, initial_value, per_entry, settled, young_steps

_ROUNDS_ALIKE = (optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.Adagrad)
"""Whose foreach and plain implementations give the same bits, so that foreach, which is faster for many small tensors,
may be taken where the user left the choice to torch."""


class _Bed:
    """One box of newcomers, as a parameter of our optimizer."""

    def __init__(self, parameter: nn.Parameter, newcomers: Newcomers, index: EntryIndex, group: int) -> None:
        self.parameter = parameter
        self.newcomers = newcomers
        self.index = index
        self.group = group
        self.leaf = nn.Parameter(index.take(parameter.detach()))
        self.keys: list[str] = []

    def read_gradient(self) -> None:
        gradient = self.parameter.grad
        if gradient is None:
            self.leaf.grad = None
        else:
            self.leaf.grad = self.index.take(gradient.to_dense() if gradient.is_sparse else gradient)

    def write(self, own: Mapping[str, Any], main: Mapping[str, Any]) -> None:
        """Put value and moments in the place of the main step's."""
        if not self.keys:
            self.keys = [
                key
                for key, value in own.items()
                if per_entry(value, self.leaf) and per_entry(main.get(key), self.parameter)
            ]
        self.index.put(self.parameter, self.leaf)
        for key in self.keys:
            self.index.put(main[key], own[key])


class Nursery:
    """All newcomers of one optimizer. `before` and `after` go around its step; everything else between two steps."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._young: dict[nn.Parameter, list[Newcomers]] = {}
        self._beds: list[_Bed] = []
        self._own: optim.Optimizer | None = None
        self._gradients_read = False

    # -- who is in it --------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """Those that have young entries."""
        return list(self._young)

    def young(self, parameter: nn.Parameter) -> list[Newcomers]:
        """The parameter's newcomers, disjoint, those alike as one."""
        self.close()
        return list(self._young.get(parameter, ()))

    def put(self, parameter: nn.Parameter, newcomers: Iterable[Newcomers]) -> None:
        """Replaces all of the parameter's newcomers; where they overlap, the later ones count."""
        self.close()
        found = settled(newcomers)
        if found:
            self._young[parameter] = found
        else:
            self._young.pop(parameter, None)

    def leave(self, parameter: nn.Parameter, entries: EntrySet) -> None:
        """These entries are young no longer."""
        if parameter in self._young:
            self.put(parameter, [n.with_entries(n.entries - entries) for n in self.young(parameter)])

    def exchange(self, old: nn.Parameter, new: nn.Parameter, axis: int, source: np.ndarray) -> None:
        """`new` takes old's place: the entries as index-selected along `axis`; -1 is none of them."""
        if old in self._young:
            young = [n.with_entries(n.entries.selected(axis, source)) for n in self.young(old)]
            del self._young[old]
            left = in_order([newcomers for newcomers in young if len(newcomers.entries)])  # still apart, and not alike
            if left:
                self._young[new] = left

    def clear(self) -> None:
        """Nobody is young."""
        self.close()
        self._young = {}

    # -- around a step -------------------------------------------------------------------------------

    def before(self) -> None:
        """Keep the young entries' values."""
        if not self._young:
            return
        if self._own is None:
            self._open()
        for bed in self._beds:
            bed.leaf.data = bed.index.take(bed.parameter.detach())
        # With a gradient scaler, a fused step may unscale the gradients as it goes. Otherwise they are read after it,
        # because a closure may make them within.
        self._gradients_read = getattr(self.optimizer, "found_inf", None) is not None
        if self._gradients_read:
            for bed in self._beds:
                bed.read_gradient()

    @torch.no_grad()
    def after(self) -> None:
        """Step the young entries. Those who are young no longer leave."""
        own = self._own
        if own is None or not self._young:
            return
        if not self._gradients_read:
            for bed in self._beds:
                bed.read_gradient()
        stepped = [bed for bed in self._beds if bed.leaf.grad is not None]
        if stepped and not self._is_skipped():
            self._step(own)
            for bed in stepped:
                bed.write(own.state[bed.leaf], self.optimizer.state[bed.parameter])
            self._grow(stepped)
        for bed in self._beds:
            bed.leaf.grad = None

    def _is_skipped(self) -> bool:
        # A skipped step of the other optimizers changes no number of theirs. SGD makes its momentum in its first one,
        # the only one that its newcomers are here for, so that it is worth waiting for the device.
        found_inf = getattr(self.optimizer, "found_inf", None)
        return isinstance(self.optimizer, optim.SGD) and found_inf is not None and bool(found_inf)

    def _step(self, own: optim.Optimizer) -> None:
        for group, number in zip(own.param_groups, self._group_numbers(), strict=True):
            group.update(self._options(number))
        for name in ("grad_scale", "found_inf"):  # where a gradient scaler leaves them for a fused step
            setattr(own, name, getattr(self.optimizer, name, None))
        with torch.enable_grad():
            own.step()

    def _grow(self, stepped: list[_Bed]) -> None:
        for newcomers in {id(bed.newcomers): bed.newcomers for bed in stepped}.values():
            newcomers.steps += 1
        needed = {n: young_steps(self.optimizer, self.optimizer.param_groups[n]) for n in self._group_numbers()}
        grown = {bed.parameter for bed in self._beds if bed.newcomers.steps >= needed[bed.group]}
        if grown:
            groups = {bed.parameter: bed.group for bed in self._beds}
            for parameter in grown:
                self.put(parameter, [n for n in self.young(parameter) if n.steps < needed[groups[parameter]]])

    # -- the optimizer of their own ------------------------------------------------------------------

    def _open(self) -> None:
        groups = {p: n for n, group in enumerate(self.optimizer.param_groups) for p in group["params"]}
        self._beds = [
            _Bed(parameter, newcomers, EntryIndex(parameter.shape, where, parameter.device), groups[parameter])
            for parameter, young in self._young.items()
            for newcomers in young
            for where in newcomers.entries.wheres()
        ]
        make: Callable[..., optim.Optimizer] = type(self.optimizer)
        self._own = make(
            [
                {**self._options(number), "params": [bed.leaf for bed in self._beds if bed.group == number]}
                for number in self._group_numbers()
            ]
        )
        for bed in self._beds:
            main = self.optimizer.state[bed.parameter]
            if bed.newcomers.scalars:
                self._own.state[bed.leaf] = self._state_of(bed, main)
            elif isinstance(self.optimizer, optim.Adagrad):  # made when constructed, by what that says
                group = self.optimizer.param_groups[bed.group]
                self._own.state[bed.leaf]["sum"].fill_(initial_value(self.optimizer, group, "sum"))

    def _state_of(self, bed: _Bed, main: Mapping[str, Any]) -> dict[str, Any]:
        state = copied(bed.newcomers.scalars)
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and isinstance(main.get(key), torch.Tensor):
                state[key] = value.to(main[key].device)
        moments = {key: bed.index.take(value) for key, value in main.items() if per_entry(value, bed.parameter)}
        return {**state, **moments}

    def _group_numbers(self) -> list[int]:
        # Numbers, because loading its state gives the optimizer new groups.
        return sorted({bed.group for bed in self._beds})

    def _options(self, number: int) -> dict[str, Any]:
        options = {key: value for key, value in self.optimizer.param_groups[number].items() if key != "params"}
        plain = not any(isinstance(value, torch.Tensor) for value in options.values())
        if options.get("foreach") is None and not options.get("fused") and plain:
            options["foreach"] = True if isinstance(self.optimizer, _ROUNDS_ALIKE) else None
        return options

    def close(self) -> None:
        """Take the numbers per tensor back from our optimizer, which is made anew for the next step."""
        if self._own is not None:
            for bed in self._beds:
                state = self._own.state.get(bed.leaf, {})
                if bed.newcomers.steps:
                    bed.newcomers.scalars = {k: v for k, v in state.items() if not per_entry(v, bed.leaf)}
        self._own, self._beds = None, []
