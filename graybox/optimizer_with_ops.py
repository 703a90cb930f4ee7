"""Optimizer state follows the neurons: per-neuron learning rates, and entries that start anew.

Both work through the optimizer's own step hooks, so that the user's loop calls `optimizer.step()` as ever.

A learning rate scales the update, not the gradient: with momentum, Adam or weight decay, a scaled gradient freezes
nothing. An entry that starts anew among old ones needs more than zeroed moments: Adam and its kin keep one step count
per tensor, and with a large one the first updates of a fresh entry would be several times a fresh optimizer's. Such
entries are stepped by an optimizer of their own, of the same class and options, until the difference is gone.
"""

from __future__ import annotations

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
"""After so many steps, entries that started anew are left to the main optimizer: with Adam's default betas the two
differ by less than 3e-5 of an update then."""


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
        self._leaf: nn.Parameter | None = None
        self._optimizer: optim.Optimizer | None = None

    def prepare(self, optimizer: optim.Optimizer, group: Mapping[str, Any], parameter: nn.Parameter) -> None:
        """Before the main step: take these entries' values, gradient and moments out."""
        index = self.indices.to(parameter.device)
        if parameter.grad is None:
            self._leaf = None
            return
        self._leaf = nn.Parameter(parameter.detach().index_select(self.axis, index).clone())
        self._leaf.grad = parameter.grad.detach().index_select(self.axis, index).clone()
        make: Callable[..., optim.Optimizer] = type(optimizer)
        self._optimizer = make([self._leaf], lr=group["lr"])
        self._optimizer.param_groups[0].update({k: v for k, v in group.items() if k != "params"})
        if self.steps == 0:
            # Adagrad makes its state when it is constructed, from an option that was only now filled in.
            if "initial_accumulator_value" in group:
                self._optimizer.state[self._leaf]["sum"].fill_(group["initial_accumulator_value"])
            return
        state: dict[str, Any] = {
            key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in self.scalars.items()
        }
        for key, value in optimizer.state[parameter].items():
            if _per_entry(value, parameter):
                state[key] = value.index_select(self.axis, index).clone()
        self._optimizer.state[self._leaf] = state

    @torch.no_grad()
    def finish(self, optimizer: optim.Optimizer, parameter: nn.Parameter) -> None:
        """After the main step: step these entries and put values and moments in the place of the main step's."""
        if self._leaf is None or self._optimizer is None:
            return
        index = self.indices.to(parameter.device)
        with torch.enable_grad():
            self._optimizer.step()
        parameter.index_copy_(self.axis, index, self._leaf.detach())
        main = optimizer.state[parameter]
        self.scalars = {}
        for key, value in self._optimizer.state[self._leaf].items():
            if _per_entry(value, self._leaf) and _per_entry(main.get(key), parameter):
                main[key].index_copy_(self.axis, index, value)
            else:
                self.scalars[key] = value
        self.steps += 1
        self._leaf = self._optimizer = None


class OptimizerWithOps:
    """Watches one optimizer's steps on behalf of one network. Built by the owner; edits call `refresh` and `renew`."""

    def __init__(self, optimizer: optim.Optimizer, network: NetworkWithOps) -> None:
        self.optimizer = optimizer
        self.network = network
        self._scaled: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = []
        self._before: list[torch.Tensor | None] = []
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
        """Read the layers' freezes and learning rates anew. Call it after every change of them."""
        self._scaled = []
        for layer in self.network.layers:
            factors = layer.update_factors()
            rows = (factors != 1.0).nonzero().flatten()
            if rows.numel():
                for parameter in self.network.neuron_parameters(layer):
                    device = parameter.device
                    self._scaled.append((parameter, rows.to(device), factors[rows].to(device)))

    def _before_step(self, *_: object) -> None:
        self._before = [
            None if p.grad is None else p.detach().index_select(0, rows).clone() for p, rows, _ in self._scaled
        ]
        for parameter, newcomers in self._newcomers:
            newcomers.prepare(self.optimizer, self._group_of(parameter), parameter)

    @torch.no_grad()
    def _after_step(self, *_: object) -> None:
        for parameter, newcomers in self._newcomers:
            newcomers.finish(self.optimizer, parameter)
        if self._newcomers:
            self._newcomers = [(p, n) for p, n in self._newcomers if n.steps < YOUNG_STEPS]
        for (parameter, rows, factors), before in zip(self._scaled, self._before, strict=True):
            if before is not None:
                parameter.index_copy_(0, rows, scaled_update(before, parameter.index_select(0, rows), factors))
        self._before = []

    # -- entries that start anew ---------------------------------------------------------------------

    def check_renewable(self) -> None:
        """Raises Refused, by name, for an optimizer whose entries cannot start anew one by one."""
        if not isinstance(self.optimizer, ELEMENTWISE):
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
                keep = ~torch.isin(newcomers.indices, indices)
                newcomers.indices = newcomers.indices[keep]
            if newcomers.indices.numel():
                remaining.append((other, newcomers))
        self._newcomers = [*remaining, (parameter, Newcomers(axis, indices.clone()))]

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
                "scalars": {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in n.scalars.items()},
            }
            for parameter, n in self._newcomers
        ]

    def load_state_dict(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Take over what `state_dict` answered, and read the layers' flags anew."""
        parameters = dict(self.network.named_parameters())
        self._newcomers = [
            (
                parameters[entry["parameter"]],
                Newcomers(entry["axis"], entry["indices"], dict(entry["scalars"]), entry["steps"]),
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


def _initial_value(key: str, group: Mapping[str, Any]) -> float:
    """What torch.optim starts an entry's state with."""
    if key == "sum":
        return float(group.get("initial_accumulator_value", 0.0))
    if key == "step_size":
        return float(group["lr"])
    return 0.0
