"""Optimizer state follows the neurons: per-neuron learning rates, and entries that start anew.

Both work through the optimizer's own step hooks, so that the user's loop calls `optimizer.step()` as ever.

A learning rate scales the update, not the gradient: with momentum, Adam or weight decay, a scaled gradient freezes
nothing. An entry that starts anew among old ones needs more than zeroed moments: Adam and its kin keep one step count
per tensor, and with a large one the first updates of a fresh entry would be several times a fresh optimizer's. Such
entries are stepped by an optimizer of their own, of the same class and options, until the difference is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn, optim

from graybox.errors import Refused
from graybox.model_with_ops import NetworkWithOps

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
        return 1  # the first momentum is the gradient itself, without dampening
    if isinstance(optimizer, optim.Adagrad) and not group["lr_decay"]:
        return 0
    largest = max((float(beta) for beta in group.get("betas", ())), default=1.0)
    if largest >= 1.0:
        return YOUNG_STEPS
    return max(1, math.ceil(math.log(5e-5) / math.log(largest))) if largest > 0.0 else 1


class Newcomers:
    """Entries of one parameter that started anew: `indices` along `axis`, stepped by an optimizer of their own.

    Moments live in the main optimizer's state, row by row; only what is one number per tensor there (the step count)
    is kept here, in `scalars`.
    """

    def __init__(self, axis: int, indices: torch.Tensor, scalars: dict[str, Any] | None = None, steps: int = 0) -> None:
        self.axis = axis
        self.indices = indices
        self.scalars: dict[str, Any] = {} if scalars is None else scalars
        self.steps = steps
        self._index: torch.Tensor | None = None
        self._values: torch.Tensor | None = None
        self._moments: dict[str, torch.Tensor] = {}
        self._own: optim.Optimizer | None = None

    def leave_out(self, indices: torch.Tensor) -> None:
        """Entries that start anew once more belong to others from now on."""
        self.indices = self.indices[~torch.isin(self.indices, indices)]
        self._index = self._values = self._own = None

    def prepare(self, optimizer: optim.Optimizer, parameter: nn.Parameter) -> None:
        """Before the main step: keep these entries' values and moments."""
        if self._index is None:
            # Kept on the parameter's device: copying it there at every step would wait for the device.
            self._index = self.indices.to(parameter.device)
        self._values = parameter.detach().index_select(self.axis, self._index)
        self._moments = {}
        if self.steps:
            for key, value in optimizer.state[parameter].items():
                if _per_entry(value, parameter):
                    self._moments[key] = value.index_select(self.axis, self._index)

    @torch.no_grad()
    def finish(self, optimizer: optim.Optimizer, group: Mapping[str, Any], parameter: nn.Parameter) -> None:
        """After the main step: step these entries and put values and moments in the place of the main step's.

        The gradient is read only now, because a closure may have made it within the step.
        """
        if self._values is None or self._index is None or parameter.grad is None:
            return
        own = self._own = self._own or self._make(optimizer, group, self._values)
        leaf: nn.Parameter = own.param_groups[0]["params"][0]
        leaf.data = self._values
        leaf.grad = parameter.grad.index_select(self.axis, self._index)
        own.param_groups[0].update({k: v for k, v in group.items() if k != "params"})
        own.state[leaf].update(self._moments)
        with torch.enable_grad():
            own.step()
        parameter.index_copy_(self.axis, self._index, leaf.detach())
        main = optimizer.state[parameter]
        self.scalars = {}
        for key, value in own.state[leaf].items():
            if _per_entry(value, leaf) and _per_entry(main.get(key), parameter):
                main[key].index_copy_(self.axis, self._index, value)
            else:
                self.scalars[key] = value
        self.steps += 1
        leaf.grad = self._values = None

    def _make(self, optimizer: optim.Optimizer, group: Mapping[str, Any], values: torch.Tensor) -> optim.Optimizer:
        leaf = nn.Parameter(values)
        make: Callable[..., optim.Optimizer] = type(optimizer)
        own = make([leaf], lr=group["lr"])
        if self.steps:
            on_device = group.get("capturable") or group.get("fused")
            own.state[leaf] = {
                key: value.to(values.device) if on_device and isinstance(value, torch.Tensor) else value
                for key, value in self.scalars.items()
            }
        elif "initial_accumulator_value" in group:
            # Adagrad makes its state when it is constructed, before the group's options are filled in.
            own.state[leaf]["sum"].fill_(group["initial_accumulator_value"])
        return own


class OptimizerWithOps:
    """Watches one optimizer's steps on behalf of one network. Built by the owner; edits call `refresh` and `renew`."""

    def __init__(self, optimizer: optim.Optimizer, network: NetworkWithOps) -> None:
        self.optimizer = optimizer
        self.network = network
        self._scaled: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []
        self._before: list[torch.Tensor] = []
        self._newcomers: list[tuple[nn.Parameter, Newcomers]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self.refresh()

    def detach(self) -> None:
        """Leave the optimizer as it was found."""
        for hook in self._hooks:
            hook.remove()

    # -- per-neuron learning rates -------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the layers' freezes and learning rates anew. Call it after every change that was not made by a layer's
        own method."""
        self._scaled = []
        layers = self.network.layers
        self._flags_version = self.network.ledger.flags_version
        for layer in layers:
            factors = layer.update_factors()
            rows = (factors != 1.0).nonzero().flatten()
            if rows.numel():
                for parameter in self.network.neuron_parameters(layer):
                    device = parameter.device
                    self._scaled.append((parameter, rows.to(device), factors[rows].to(device)))

    def _before_step(self, *_: object) -> None:
        if self._flags_version != self.network.ledger.flags_version:
            self.refresh()
        # Whether there is a gradient is not asked: a closure makes it within the step.
        self._before = [p.detach().index_select(0, rows) for p, rows, _ in self._scaled]
        for parameter, newcomers in self._newcomers:
            newcomers.prepare(self.optimizer, parameter)

    @torch.no_grad()
    def _after_step(self, *_: object) -> None:
        if self._newcomers:
            self._step_newcomers()
        for (parameter, rows, factors), before in zip(self._scaled, self._before, strict=True):
            parameter.index_copy_(0, rows, scaled_update(before, parameter.index_select(0, rows), factors))
        self._before = []

    def _step_newcomers(self) -> None:
        # In the order of their edits: where two overlap, the later one has the last word.
        remaining = []
        for parameter, newcomers in self._newcomers:
            group = self._group_of(parameter)
            newcomers.finish(self.optimizer, group, parameter)
            if newcomers.steps < young_steps(self.optimizer, group):
                remaining.append((parameter, newcomers))
        self._newcomers = remaining

    # -- entries that start anew ---------------------------------------------------------------------

    def check_renewable(self) -> None:
        """Raises Refused, by name, for an optimizer whose entries cannot start anew one by one."""
        # The very class: what a subclass does to its entries nobody knows.
        if type(self.optimizer) not in ELEMENTWISE:
            known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
            raise Refused(
                f"{type(self.optimizer).__name__} couples the entries of a parameter, or is not known to treat them "
                f"one by one, so that no neuron can start anew in it; it can in {known}"
            )

    @torch.no_grad()
    def renew(self, parameter: nn.Parameter, axis: int, indices: torch.Tensor) -> None:
        """These entries of `parameter` start as in a fresh optimizer: `indices` int64 along `axis`."""
        self.check_renewable()
        state = self.optimizer.state.get(parameter)
        if not state:
            return  # no step was made yet: all entries are fresh
        group = self._group_of(parameter)
        index = indices.to(parameter.device)
        for key, value in state.items():
            if _per_entry(value, parameter):
                value.index_fill_(axis, index, _initial_value(key, group))
        remaining = []
        for other, newcomers in self._newcomers:
            if other is parameter and newcomers.axis == axis:
                newcomers.leave_out(indices)
            if newcomers.indices.numel():
                remaining.append((other, newcomers))
        if young_steps(self.optimizer, group):
            remaining.append((parameter, Newcomers(axis, indices.clone())))
        self._newcomers = remaining

    def entries(self, parameter: nn.Parameter, axis: int, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Copies of the optimizer's state of these entries, by key; empty before the first step."""
        index = indices.to(parameter.device)
        return {
            key: value.index_select(axis, index)
            for key, value in self.optimizer.state.get(parameter, {}).items()
            if _per_entry(value, parameter)
        }

    def _group_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        for group in self.optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        raise Refused("the optimizer does not hold every parameter of the layer; give it model.parameters()")

    def holds(self, parameter: nn.Parameter) -> bool:
        """Whether the optimizer updates this parameter at all."""
        return any(p is parameter for group in self.optimizer.param_groups for p in group["params"])

    # -- keeping -------------------------------------------------------------------------------------

    def state_dict(self) -> list[dict[str, Any]]:
        """Entries that are still young, as tensors and numbers: what the optimizer's own state_dict does not hold."""
        names = {id(p): name for name, p in self.network.named_parameters()}
        return [
            {
                "parameter": names[id(parameter)],
                "axis": n.axis,
                "indices": n.indices.clone(),
                "steps": n.steps,
                "scalars": _copied(n.scalars),
            }
            for parameter, n in self._newcomers
        ]

    def load_state_dict(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Take over what `state_dict` answered, and read the layers' flags anew."""
        parameters = dict(self.network.named_parameters())
        self._newcomers = [
            (
                parameters[entry["parameter"]],
                Newcomers(entry["axis"], entry["indices"].clone(), _copied(entry["scalars"]), entry["steps"]),
            )
            for entry in state
        ]
        self.refresh()


def scaled_update(before: torch.Tensor, after: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """before + factor * (after - before), row by row, rounded once; exactly `before` where the factor is 0.

    before, after: [rows, ...]; factors: float64 [rows].
    """
    shape = (-1, *(1 for _ in range(before.dim() - 1)))
    factor = factors.view(shape)
    old = before.to(torch.float64)
    scaled = (old + factor * (after.to(torch.float64) - old)).to(before.dtype)
    return torch.where(factor == 0, before, scaled)


def _per_entry(value: object, parameter: torch.Tensor) -> bool:
    # A scalar parameter's step count has its shape too; neurons have at least one dimension.
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim() > 0


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def _initial_value(key: str, group: Mapping[str, Any]) -> float:
    """What torch.optim starts an entry's state with."""
    if key == "sum":
        return float(group.get("initial_accumulator_value", 0.0))
    if key == "step_size":
        return float(group["lr"])
    return 0.0
