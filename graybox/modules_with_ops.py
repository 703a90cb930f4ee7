"""Layers whose neurons can be operated on: torch.nn's own, constructed the same way, plus statistics and flags.

The weights stay ordinary parameters under their ordinary names: a state_dict loads into the plain network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from graybox.errors import Invalid, NotFound
from graybox.tracking import Ledger, TrackingMode, TriggersTracker, trigger_shares

_creation_order = itertools.count()

Intermediary = dict[int, torch.Tensor]


class ModuleWithOps(nn.Module):
    """Anything that carries neurons and has an id."""

    _module_id: int

    def _init_ops(self) -> None:
        self._module_id = next(_creation_order)
        # A layer on its own keeps its own ledger; a network gives all its layers one.
        self.ledger = Ledger()

    @property
    def tracking_mode(self) -> TrackingMode:
        """Which statistics a forward pass adds to: one mode for the whole network."""
        return self.ledger.mode

    @tracking_mode.setter
    def tracking_mode(self, mode: TrackingMode) -> None:
        self.ledger.mode = mode

    def get_module_id(self) -> int:
        """The layer's number within its network (in module order, from 0), once the network has named its layers by
        `register_dependencies` or `layers`; before that, a number unique in this process."""
        return self._module_id

    @property
    def neuron_count(self) -> int:
        """Output channels or features."""
        raise NotImplementedError


class NeuronLayer(ModuleWithOps):
    """A convolution or linear layer: neurons along dimension 0 of `weight`, with trackers and flags.

    frozen: bool [neurons] on the CPU. neuron_learning_rate: float64 [neurons] on the CPU, the factor on the update.
    """

    weight: torch.Tensor
    features_last = False

    def _init_ops(self) -> None:
        super()._init_ops()
        self.train_dataset_tracker = TriggersTracker(self.neuron_count)
        self.eval_dataset_tracker = TriggersTracker(self.neuron_count)
        self.frozen = torch.zeros(self.neuron_count, dtype=torch.bool)
        self.neuron_learning_rate = torch.ones(self.neuron_count, dtype=torch.float64)
        # Set by the network: whose neurons are read off this layer's input, and who counts this layer's own neurons
        # ("consumer", "prediction", or "" for its own output).
        self.reads_triggers_of: tuple[NeuronLayer, ...] = ()
        self.triggers_counted_by = ""
        self._initialization: Callable[[NeuronLayer], None] | None = None

    @property
    def neuron_count(self) -> int:
        return int(self.weight.shape[0])

    @property
    def incoming_neuron_count(self) -> int:
        """Input channels or features."""
        raise NotImplementedError

    def tracker(self) -> TriggersTracker | None:
        """The tracker that the present mode adds to."""
        mode = self.ledger.mode
        if mode is TrackingMode.TRAIN:
            return self.train_dataset_tracker
        if mode is TrackingMode.EVAL:
            return self.eval_dataset_tracker
        return None

    def register(self, activations: torch.Tensor) -> None:
        """Count triggers of this layer: [batch, neurons, ...]; a positive value is a trigger.

        For a network's own use where the neurons are not read off the next layer's input: the last layer registers
        the one-hot prediction.
        """
        if self.triggers_counted_by == "prediction":
            self.ledger.prediction_registered = True
        self.count(activations)

    def count(self, activations: torch.Tensor, *, features_last: bool = False) -> None:
        """Add a batch of activations to the present mode's tracker."""
        if self.tracker() is not None:
            shares = trigger_shares(
                activations,
                self.neuron_count,
                features_last=features_last,
                flat_features_last=self.features_last,
            )
            self.count_shares(shares, activations.shape[0])

    def count_shares(self, shares: torch.Tensor, samples: int) -> None:
        """Add sums of shares (float64 [neurons]) over so many samples to the present mode's tracker."""
        tracker = self.tracker()
        if tracker is not None:
            self.ledger.add(tracker, shares, samples)

    def _observe_input(self, x: torch.Tensor) -> None:
        if self.ledger.mode is not TrackingMode.DISABLED:
            for producer in self.reads_triggers_of:
                producer.count(x, features_last=self.features_last)

    def _observe_output(
        self, output: torch.Tensor, skip_register: bool, intermediary: Intermediary | None
    ) -> torch.Tensor:
        if not skip_register and not self.triggers_counted_by:
            self.count(output, features_last=self.features_last)
        if intermediary is not None:
            intermediary[self.get_module_id()] = output
        return output

    def register_initialization(self, function: Callable[[NeuronLayer], None]) -> None:
        """What initialises this layer anew: called with a copy of the layer fresh from `reset_parameters`, whose
        parameters it sets in place."""
        self._initialization = function

    def own_initialization(self) -> dict[str, torch.Tensor]:
        """Fresh values of all parameters by name, by the registered function or `reset_parameters`. Draws from the
        global random state: the caller seeds and restores it. The layer itself is not touched."""
        fresh = self.__class__.__new__(self.__class__)
        fresh.__dict__.update(self.__dict__)
        fresh._parameters = {
            name: None if value is None else nn.Parameter(torch.empty_like(value))
            for name, value in self._parameters.items()
        }
        fresh.reset_parameters()  # type: ignore[operator]  # every torch.nn layer with weights has it
        if self._initialization is not None:
            self._initialization(fresh)
        return {name: value.detach() for name, value in fresh._parameters.items() if value is not None}

    def check_neurons(self, neurons: Iterable[int]) -> torch.Tensor:
        """The indices as an int64 tensor. Raises NotFound for one that the layer does not have."""
        index = torch.as_tensor(list(neurons), dtype=torch.int64)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.neuron_count):
            wrong = [int(i) for i in index if not 0 <= int(i) < self.neuron_count]
            raise NotFound(f"no neuron {wrong[0]} in this layer: it has {self.neuron_count}, numbered from 0")
        return index

    def set_per_neuron_learning_rate(self, neuron_ids: Iterable[int], lr: float) -> None:
        """Scale the update of these neurons by `lr` >= 0: new = old + lr * (unscaled new - old)."""
        if not 0 <= lr < float("inf"):
            raise Invalid(f"a per-neuron learning rate is a finite factor of 0 or more, not {lr}")
        self.neuron_learning_rate[self.check_neurons(neuron_ids)] = lr
        self.ledger.flags_version += 1

    def get_per_neuron_learning_rate(self, neuron_id: int) -> float:
        """The factor on this neuron's update: 0 while it is frozen."""
        return float(self.update_factors()[self.check_neurons([neuron_id])])

    def update_factors(self) -> torch.Tensor:
        """The factor on each neuron's update, float64 [neurons]: its learning rate, 0 where frozen."""
        return torch.where(self.frozen, torch.zeros_like(self.neuron_learning_rate), self.neuron_learning_rate)

    def reset_stats(self) -> None:
        """Forget what all neurons did, in training and evaluation."""
        self.train_dataset_tracker.reset()
        self.eval_dataset_tracker.reset()

    def ops_state(self) -> dict[str, Any]:
        """Flags and statistics, as tensors on the CPU: what a state_dict does not hold."""
        return {
            "frozen": self.frozen.clone(),
            "learning_rate": self.neuron_learning_rate.clone(),
            "train": self.train_dataset_tracker.state_dict(),
            "eval": self.eval_dataset_tracker.state_dict(),
        }

    def load_ops_state(self, state: dict[str, Any]) -> None:
        """Take over what `ops_state` answered. Raises Invalid when the number of neurons differs."""
        self.train_dataset_tracker.load_state_dict(state["train"])
        self.eval_dataset_tracker.load_state_dict(state["eval"])
        self.frozen = state["frozen"].clone()
        self.neuron_learning_rate = state["learning_rate"].clone()
        self.ledger.flags_version += 1


class Conv2dWithNeuronOps(NeuronLayer, nn.Conv2d):
    """`torch.nn.Conv2d` whose output channels can be operated on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        nn.Conv2d.__init__(self, *args, **kwargs)
        self._init_ops()

    @property
    def incoming_neuron_count(self) -> int:
        return self.in_channels

    def forward(
        self, x: torch.Tensor, skip_register: bool = False, intermediary: Intermediary | None = None
    ) -> torch.Tensor:
        """x [batch, in_channels, height, width] -> [batch, out_channels, ...]. The output is put into `intermediary`
        under the layer's id when one is given; skip_register leaves the layer's own statistics alone."""
        self._observe_input(x)
        return self._observe_output(nn.Conv2d.forward(self, x), skip_register, intermediary)


class LinearWithNeuronOps(NeuronLayer, nn.Linear):
    """`torch.nn.Linear` whose output features can be operated on."""

    features_last = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        nn.Linear.__init__(self, *args, **kwargs)
        self._init_ops()

    @property
    def incoming_neuron_count(self) -> int:
        return self.in_features

    def forward(
        self, x: torch.Tensor, skip_register: bool = False, intermediary: Intermediary | None = None
    ) -> torch.Tensor:
        """x [batch, ..., in_features] -> [batch, ..., out_features]; the rest as in Conv2dWithNeuronOps."""
        self._observe_input(x)
        return self._observe_output(nn.Linear.forward(self, x), skip_register, intermediary)


class BatchNorm2dWithNeuronOps(ModuleWithOps, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that follows the neurons of the convolution before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        nn.BatchNorm2d.__init__(self, *args, **kwargs)
        self._init_ops()

    @property
    def neuron_count(self) -> int:
        return int(self.num_features)
