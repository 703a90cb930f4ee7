"""Optimizer state follows the neurons: through edits of structure, updates that are scaled, entries that start anew.

Works through the optimizer's own step hooks, so that the user's loop calls `optimizer.step()` as ever; the optimizer,
its groups and whatever holds on to them (a learning-rate scheduler, a gradient scaler) stay the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from graybox.entry_sets import EntryIndex, EntrySet, Where, checked_where
from graybox.errors import Invalid, Refused
from graybox.index_selection import selected
from graybox.model_with_ops import NetworkWithOps
from graybox.newcomers import (
    ELEMENTWISE,
    YOUNG_STEPS,
    Newcomers,
    check_elementwise,
    check_entries,
    initial_value,
    per_entry,
    placed,
    young_steps,
)
from graybox.nursery import Nursery
from graybox.scaled_updates import ScaledUpdates, scaled_update

__all__ = ["ELEMENTWISE", "YOUNG_STEPS", "Newcomers", "OptimizerWithOps", "scaled_update", "young_steps"]


class OptimizerWithOps:
    """Watches one optimizer's steps on behalf of one network. Built by the owner; edits are made between two steps.

    Entries of a parameter are named by `indices` (int64) along one `axis`, or, by the methods that end in `_at`, by
    `where`: indices by axis, of which the product is meant, everything along the other axes.
    """

    def __init__(self, optimizer: optim.Optimizer, network: NetworkWithOps) -> None:
        self.optimizer = optimizer
        self.network = network
        self._nursery = Nursery(optimizer)
        self._scaled = ScaledUpdates([])
        self._flags_version: int | None = None
        self.before_change: Callable[[], None] = lambda: None
        """Called before anything that the optimizer keeps of a parameter is changed in its place."""
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_load_state_dict_post_hook(lambda _: self._nursery.close()),
        ]
        self.refresh()

    def detach(self) -> None:
        """Leave the optimizer as it was found."""
        for hook in self._hooks:
            hook.remove()

    # -- around a step -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the network's freezes and learning rates anew. Call it after every change that was not made by a
        layer's own method."""
        self._scaled = ScaledUpdates(self.network.update_scalings())
        self._flags_version = self.network.ledger.flags_version

    def _before_step(self, *_: object) -> None:
        self.before_change()
        if self._flags_version != self.network.ledger.flags_version:
            self.refresh()
        self._scaled.before()
        self._nursery.before()

    def _after_step(self, *_: object) -> None:
        self._nursery.after()
        self._scaled.after()

    # -- structure -----------------------------------------------------------------------------------

    def check_renewable(self) -> None:
        """Raises Refused, by name, for an optimizer whose entries cannot come, go or start anew one by one."""
        reason = check_elementwise(self.optimizer)
        if reason:
            raise Refused(reason)

    def holds(self, parameter: nn.Parameter) -> bool:
        """Whether the optimizer updates this parameter at all."""
        return any(p is parameter for group in self.optimizer.param_groups for p in group["params"])

    @torch.no_grad()
    def exchange(self, old: nn.Parameter, new: nn.Parameter, axis: int, source: torch.Tensor) -> None:
        """`new` takes old's place: source, int64 [size of `axis` in `new`], names the old index of each new one, -1
        for an entry that is new, which starts as in a fresh optimizer. Moments and young entries follow; numbers per
        tensor (step counts) stay. `new` has its values and its gradient already; `old` is not touched. A parameter
        that the optimizer does not hold is left alone.

        Raises Refused for an optimizer that couples entries, Invalid for a source or a shape that does not fit;
        nothing was changed then.
        """
        if not self.holds(old):
            return
        self.check_renewable()
        source, added = _checked_source(old, new, axis, source)
        fresh = added.to(new.device)
        group = self._group_of(old)
        state = self.optimizer.state.get(old, {})
        followed: dict[str, Any] = {}
        for key, value in state.items():
            if per_entry(value, old):
                chosen = selected(value, axis, source.numpy())
                if len(fresh):
                    chosen.index_fill_(axis, fresh, initial_value(self.optimizer, group, key))
                followed[key] = _laid_out_like(chosen, new)
            else:
                followed[key] = value
        place = next(number for number, p in enumerate(group["params"]) if p is old)
        group["params"][place] = new
        self.optimizer.state.pop(old, None)
        if state:
            self.optimizer.state[new] = followed
        self._nursery.exchange(old, new, axis, source.numpy())
        if len(added):
            self._start(new, {axis: added})
        # The network's flags follow later in the same edit; until then nothing may be scaled by the old ones.
        self._scaled, self._flags_version = ScaledUpdates([]), None

    # -- entries -------------------------------------------------------------------------------------

    def entries(self, parameter: nn.Parameter, axis: int, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Copies of the optimizer's state of these entries, by key; empty before the first step."""
        return self.entries_at(parameter, {axis: indices})

    def entries_at(self, parameter: nn.Parameter, where: Where) -> dict[str, torch.Tensor]:
        """As `entries`, of a region; each is shaped as the parameter, with as many indices as asked for."""
        index = EntryIndex(parameter.shape, checked_where(parameter.shape, where), parameter.device)
        state = self.optimizer.state.get(parameter, {})
        return {key: index.take(value) for key, value in state.items() if per_entry(value, parameter)}

    def put_entries(
        self, parameter: nn.Parameter, axis: int, indices: torch.Tensor, entries: Mapping[str, torch.Tensor]
    ) -> None:
        """Write back what `entries` answered. These entries are young no longer, unless `put_young` says so; what was
        kept before the first step starts anew. Raises Invalid for what the optimizer has no place for."""
        self.put_entries_at(parameter, {axis: indices}, entries)

    @torch.no_grad()
    def put_entries_at(self, parameter: nn.Parameter, where: Where, entries: Mapping[str, torch.Tensor]) -> None:
        """As `put_entries`, of a region."""
        self.before_change()
        where = checked_where(parameter.shape, where)
        state = self.optimizer.state.get(parameter, {})
        per_key = {key: value for key, value in state.items() if per_entry(value, parameter)}
        if not entries:
            if per_key and not check_elementwise(self.optimizer):
                self.renew_at(parameter, where)
            return
        index = EntryIndex(parameter.shape, where, parameter.device)
        check_entries(entries, per_key, index.take(parameter.detach()))
        group = self._group_of(parameter)
        for key, value in per_key.items():
            if key in entries:
                index.put(value, entries[key].to(value.device, value.dtype))
            else:
                index.fill(value, initial_value(self.optimizer, group, key))
        self._nursery.leave(parameter, EntrySet.product(parameter.shape, where))

    def renew(self, parameter: nn.Parameter, axis: int, indices: torch.Tensor) -> None:
        """These entries start as in a fresh optimizer. Raises Refused for an optimizer that couples entries, or does
        not hold the parameter."""
        self.renew_at(parameter, {axis: indices})

    @torch.no_grad()
    def renew_at(self, parameter: nn.Parameter, where: Where) -> None:
        """As `renew`, of a region."""
        self.check_renewable()
        self.before_change()
        where = checked_where(parameter.shape, where)
        group = self._group_of(parameter)
        index = EntryIndex(parameter.shape, where, parameter.device)
        for key, value in self.optimizer.state.get(parameter, {}).items():
            if per_entry(value, parameter):
                index.fill(value, initial_value(self.optimizer, group, key))
        self._start(parameter, where)

    def _start(self, parameter: nn.Parameter, where: Where) -> None:
        entries = EntrySet.product(parameter.shape, where)
        state = self.optimizer.state.get(parameter)
        if not len(entries) or not state or not float(state.get("step", 1.0)):
            return  # before the first step all entries are fresh
        if young_steps(self.optimizer, self._group_of(parameter)):
            self._nursery.put(parameter, [*self._nursery.young(parameter), Newcomers(entries)])
        else:
            self._nursery.leave(parameter, entries)

    def _group_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        for group in self.optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        raise Refused("the optimizer does not hold every parameter of the layer; give it model.parameters()")

    # -- young entries -------------------------------------------------------------------------------

    def young(self, parameter: nn.Parameter) -> list[dict[str, Any]]:
        """All young entries of one parameter, as plain values and tensors (see `Newcomers.to_dicts`). Equal for equal
        states, however they came about."""
        return [kept for newcomers in self._nursery.young(parameter) for kept in newcomers.to_dicts()]

    def put_young(self, parameter: nn.Parameter, young: Iterable[Mapping[str, Any]]) -> None:
        """Replaces all young entries of one parameter by what `young` answered. Moments are `put_entries`'s. Raises
        Refused where the optimizer does not hold the parameter."""
        newcomers = [Newcomers.from_dict(parameter.shape, kept) for kept in young]
        if newcomers:
            self._group_of(parameter)
        self._nursery.put(parameter, newcomers)

    def young_at(self, parameter: nn.Parameter, where: Where) -> list[dict[str, Any]]:
        """The young entries within a region, numbered by their place in it."""
        parts = [n.with_entries(n.entries.within(where)) for n in self._nursery.young(parameter)]
        return [kept for part in parts for kept in part.to_dicts()]

    def put_young_at(self, parameter: nn.Parameter, where: Where, young: Iterable[Mapping[str, Any]]) -> None:
        """Within a region, those are young that `young_at` answered for it, and no others. Elsewhere, all stay."""
        region = EntrySet.product(parameter.shape, where)
        # The region's shape.
        shape = [len(where[axis]) if axis in where else size for axis, size in enumerate(parameter.shape)]
        self._group_of(parameter)
        back = placed([Newcomers.from_dict(shape, kept) for kept in young], parameter.shape, where)
        self._nursery.leave(parameter, region)
        self._nursery.put(parameter, [*self._nursery.young(parameter), *back])

    # -- keeping -------------------------------------------------------------------------------------

    def state_dict(self) -> list[dict[str, Any]]:
        """Entries that are still young, as tensors and numbers: what the optimizer's own state_dict does not hold."""
        return [
            {"parameter": name, **kept}
            for name, parameter in self.network.named_parameters()
            for kept in self.young(parameter)
        ]

    def load_state_dict(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Take over what `state_dict` answered, and read the layers' flags anew. Raises Invalid for a parameter that
        the network does not have."""
        parameters = dict(self.network.named_parameters())
        found: dict[str, list[Mapping[str, Any]]] = {}
        for kept in state:
            if kept["parameter"] not in parameters:
                raise Invalid(f"young entries of {kept['parameter']!r}, which is no parameter of this network")
            found.setdefault(kept["parameter"], []).append(kept)
        self._nursery.clear()
        for name, young in found.items():
            self.put_young(parameters[name], young)
        self.refresh()


def _checked_source(
    old: nn.Parameter, new: nn.Parameter, axis: int, source: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(source, indices of the new entries), int64 on the CPU."""
    source = torch.as_tensor(source, dtype=torch.int64).cpu()
    if not 0 <= axis < old.dim():
        raise Invalid(f"no axis {axis} in a parameter of shape {tuple(old.shape)}")
    size, numbers = old.shape[axis], source.numpy()
    if numbers.ndim != 1 or (numbers < -1).any() or (numbers >= size).any():
        raise Invalid(f"a source names indices of {size} entries, or -1 for a new one, not {source.tolist()}")
    wanted = (*old.shape[:axis], len(numbers), *old.shape[axis + 1 :])
    if tuple(new.shape) != wanted:
        raise Invalid(f"the new parameter has the shape {tuple(new.shape)} where {wanted} is right")
    return source, torch.from_numpy(np.flatnonzero(numbers < 0))


def _laid_out_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """In the parameter's memory format, which fused and foreach steps need."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
