"""Layers whose neurons can be operated on: torch.nn's own, constructed the same way, plus statistics and flags.

The weights stay ordinary parameters under their ordinary names: a state_dict loads into the plain network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from graybox.errors import Invalid, NotFound
from graybox.layer_edits import COLUMN_FLAGS, ROW_FLAGS, LayerEdits, NormEdits
from graybox.neuron_records import NeuronRecords, observe_together
from graybox.observation import Layout
from graybox.tracking import Ledger, TrackingMode, TriggersTracker

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


class NeuronLayer(LayerEdits, ModuleWithOps):
    """A module with a weight whose axis `out_axis` are neurons, with records and flags.

    On the CPU, [neurons]: frozen and bias_frozen bool, neuron_learning_rate float64, the factor on the update. By place
    along the weight's `in_axis` (-1: none): incoming_frozen bool, incoming_learning_rate float64.
    neuron_identity and incoming_identity, int64: which neuron it is, the same through every edit; see
    `graybox.neuron_identity`.
    """

    weight: torch.Tensor
    out_axis = 0
    in_axis = 1
    features_last = False

    def _init_ops(self) -> None:
        super()._init_ops()
        self.resize_ops()
        # Set by the network: who counts this layer's own neurons ("consumer", "prediction", or "" for its own output).
        self.triggers_counted_by = ""
        self._initialization: Callable[[NeuronLayer], None] | None = None

    @property
    def readings(self) -> tuple[tuple[tuple[NeuronLayer, ...], Layout], ...]:
        """Whose neurons are read off this layer's input, and how; set by the network."""
        # In the ledger, which all layers share: layers that knew each other would be copied and pickled in one long
        # chain, too deep for Python in a deep network.
        found: tuple[tuple[tuple[NeuronLayer, ...], Layout], ...] = self.ledger.readings.get(self.get_module_id(), ())
        return found

    @readings.setter
    def readings(self, readings: tuple[tuple[tuple[NeuronLayer, ...], Layout], ...]) -> None:
        self.ledger.readings[self.get_module_id()] = readings

    @property
    def reads_triggers_of(self) -> tuple[NeuronLayer, ...]:
        """The layers whose neurons are read off this layer's input."""
        return tuple(producer for producers, _ in self.readings for producer in producers)

    def resize_ops(self) -> None:
        """Records and flags for as many neurons as the weight has now: nothing known, nothing set."""
        neurons, places = self.neuron_count, self.incoming_places
        self.records = NeuronRecords(neurons)
        self.frozen = torch.zeros(neurons, dtype=torch.bool)
        self.bias_frozen = torch.zeros(neurons, dtype=torch.bool)
        self.neuron_learning_rate = torch.ones(neurons, dtype=torch.float64)
        self.incoming_frozen = torch.zeros(places, dtype=torch.bool)
        self.incoming_learning_rate = torch.ones(places, dtype=torch.float64)
        self.neuron_identity, self.incoming_identity = torch.arange(neurons), torch.arange(places)

    @property
    def train_dataset_tracker(self) -> TriggersTracker:
        """What the neurons did in training."""
        return self.records.train

    @property
    def eval_dataset_tracker(self) -> TriggersTracker:
        """What the neurons did in evaluation."""
        return self.records.eval

    @property
    def neuron_count(self) -> int:
        return int(self.weight.shape[self.out_axis])

    @property
    def incoming_places(self) -> int:
        """How long the weight's axis of what it consumes is; of a grouped convolution, one group's inputs."""
        return int(self.weight.shape[self.in_axis]) if self.in_axis >= 0 else 0

    @property
    def incoming_neuron_count(self) -> int:
        """Input channels or features; 0 for a layer that looks up instead of multiplying."""
        return self.incoming_places * int(getattr(self, "groups", 1))

    # -- what the neurons do -----------------------------------------------------------------------------

    def tracker(self) -> TriggersTracker | None:
        """The tracker that the present mode adds to."""
        return self.records.tracker(self.ledger.mode)

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
        self.records.observe(self.ledger, activations, Layout(features_last, self.features_last))

    def count_shares(self, shares: torch.Tensor, samples: int) -> None:
        """Add sums of shares (float64 [neurons]) over so many samples to the present mode's tracker."""
        tracker = self.tracker()
        if tracker is not None:
            self.ledger.add(tracker, shares, samples)

    def _observe_input(self, x: torch.Tensor) -> None:
        if self.ledger.mode is TrackingMode.DISABLED:
            return
        for producers, layout in self.readings:
            observe_together([producer.records for producer in producers], self.ledger, x, layout)

    def _observe_output(
        self, output: torch.Tensor, skip_register: bool, intermediary: Intermediary | None
    ) -> torch.Tensor:
        if self.ledger.mode is not TrackingMode.DISABLED and not skip_register:
            if not self.triggers_counted_by:
                self.count(output, features_last=self.features_last)
            elif self.triggers_counted_by == "prediction" and self.ledger.everything:
                # How large its answers are; what triggers is the prediction.
                layout = Layout(self.features_last, self.features_last)
                self.records.observe(self.ledger, output, layout, triggers=False)
        if intermediary is not None:
            intermediary[self.get_module_id()] = output
        return output

    def forward(
        self,
        *args: Any,
        skip_register: bool = False,
        intermediary: Intermediary | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the plain layer. The output is put into `intermediary` under the layer's id when one is given;
        skip_register leaves the layer's own statistics alone. Inside of what torch.compile makes nothing is counted."""
        if torch.compiler.is_compiling() and intermediary is None:
            return super().forward(*args, **kwargs)
        if self.readings:
            x = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(x, torch.Tensor):
                self._observe_input(x)
        output = super().forward(*args, **kwargs)  # the plain layer's, next in line
        if isinstance(output, torch.Tensor):
            return self._observe_output(output, skip_register, intermediary)
        return output

    # -- initialisation ----------------------------------------------------------------------------------

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

    # -- flags -------------------------------------------------------------------------------------------

    def check_neurons(self, neurons: Iterable[int]) -> torch.Tensor:
        """The indices as an int64 tensor. Raises NotFound for one that the layer does not have."""
        return checked_index(neurons, self.neuron_count, "neuron")

    def check_incoming(self, neurons: Iterable[int]) -> torch.Tensor:
        """Indices along the weight's incoming axis as an int64 tensor. Raises NotFound for one that is not there."""
        return checked_index(neurons, self.incoming_places, "incoming neuron")

    def set_per_neuron_learning_rate(self, neuron_ids: Iterable[int], lr: float) -> None:
        """Scale the update of these neurons by `lr` >= 0: new = old + lr * (unscaled new - old)."""
        self.neuron_learning_rate[self.check_neurons(neuron_ids)] = checked_rate(lr)
        self.ledger.flags_version += 1

    def get_per_neuron_learning_rate(self, neuron_id: int) -> float:
        """The factor on this neuron's update: 0 while it is frozen."""
        return float(self.update_factors()[self.check_neurons([neuron_id])])

    def set_per_incoming_neuron_learning_rate(self, neuron_ids: Iterable[int], lr: float) -> None:
        """Scale the update of the connections from these incoming neurons by `lr` >= 0."""
        self.incoming_learning_rate[self.check_incoming(neuron_ids)] = checked_rate(lr)
        self.ledger.flags_version += 1

    def update_factors(self) -> torch.Tensor:
        """The factor on each neuron's update, float64 [neurons]: its learning rate, 0 where frozen."""
        return torch.where(self.frozen, torch.zeros_like(self.neuron_learning_rate), self.neuron_learning_rate)

    def bias_factors(self) -> torch.Tensor:
        """The further factor on each bias' update, float64 [neurons]: 0 where its bias alone is frozen, else 1."""
        return (~self.bias_frozen).to(torch.float64)

    def incoming_factors(self) -> torch.Tensor:
        """The factor on the update of the connections from each incoming neuron, float64 [incoming places]."""
        rate = self.incoming_learning_rate
        return torch.where(self.incoming_frozen, torch.zeros_like(rate), rate)

    def reset_stats(self) -> None:
        """Forget what all neurons did, in training and evaluation."""
        self.records.reset()

    # -- keeping -----------------------------------------------------------------------------------------

    def ops_state(self, *, copied: bool = True) -> dict[str, Any]:
        """Flags and statistics, as tensors on the CPU: what a state_dict does not hold. copied=False: statistics as the
        tensors that are counted in, wherever these are, for who copies them before anything changes them."""
        return {
            "frozen": self.frozen.clone(),
            "learning_rate": self.neuron_learning_rate.clone(),
            "bias_frozen": self.bias_frozen.clone(),
            "incoming_frozen": self.incoming_frozen.clone(),
            "incoming_learning_rate": self.incoming_learning_rate.clone(),
            "neuron_identity": self.neuron_identity.clone(),
            "incoming_identity": self.incoming_identity.clone(),
            **self.records.state_dict(copied=copied),
        }

    def load_ops_state(self, state: dict[str, Any]) -> None:
        """Take over what `ops_state` answered. Raises Invalid when the number of neurons differs."""
        if state["frozen"].shape[0] != self.neuron_count:
            raise Invalid(f"flags of {state['frozen'].shape[0]} neurons do not fit {self.neuron_count}")
        self.resize_ops()
        self.records.load_state_dict(state)
        self.neuron_learning_rate = state["learning_rate"].clone()
        for name in (*ROW_FLAGS, *COLUMN_FLAGS):
            if name in state:  # a checkpoint of before knows nothing of them
                setattr(self, name, state[name].clone())
        self.ledger.flags_version += 1


def checked_index(neurons: Iterable[int] | Sequence[int], count: int, what: str) -> torch.Tensor:
    """The indices as an int64 tensor. Raises NotFound for one outside [0, count)."""
    index = torch.as_tensor(list(neurons), dtype=torch.int64)
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= count):
        wrong = [int(i) for i in index if not 0 <= int(i) < count]
        raise NotFound(f"no {what} {wrong[0]} in this layer: it has {count}, numbered from 0")
    return index


def checked_rate(rate: float) -> float:
    """Raises Invalid for what is no factor on an update."""
    if not 0 <= rate < float("inf"):
        raise Invalid(f"a per-neuron learning rate is a finite factor of 0 or more, not {rate}")
    return rate


class _Constructed(NeuronLayer):
    """A torch.nn layer, next in line, constructed with its own arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._init_ops()

    def forward(  # type: ignore[override]  # plain layers take nothing else, scripts may give these two by place
        self,
        x: Any = None,
        skip_register: bool = False,
        intermediary: Intermediary | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the plain layer (whose argument is called `input`). The output is put into `intermediary` under the
        layer's id when one is given; skip_register leaves the layer's own statistics alone."""
        given = () if x is None else (x,)
        return NeuronLayer.forward(self, *given, skip_register=skip_register, intermediary=intermediary, **kwargs)


class Conv1dWithNeuronOps(_Constructed, nn.Conv1d):  # type: ignore[misc]  # its argument has another name
    """`torch.nn.Conv1d` whose output channels can be operated on."""


class Conv2dWithNeuronOps(_Constructed, nn.Conv2d):  # type: ignore[misc]  # its argument has another name
    """`torch.nn.Conv2d` whose output channels can be operated on."""


class Conv3dWithNeuronOps(_Constructed, nn.Conv3d):  # type: ignore[misc]  # its argument has another name
    """`torch.nn.Conv3d` whose output channels can be operated on."""


class ConvTranspose1dWithNeuronOps(_Constructed, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` whose output channels can be operated on."""

    out_axis = 1
    in_axis = 0
    forward = NeuronLayer.forward  # it takes an output size, too


class ConvTranspose2dWithNeuronOps(_Constructed, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` whose output channels can be operated on."""

    out_axis = 1
    in_axis = 0
    forward = NeuronLayer.forward  # it takes an output size, too


class ConvTranspose3dWithNeuronOps(_Constructed, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` whose output channels can be operated on."""

    out_axis = 1
    in_axis = 0
    forward = NeuronLayer.forward  # it takes an output size, too


class LinearWithNeuronOps(_Constructed, nn.Linear):  # type: ignore[misc]  # its argument has another name
    """`torch.nn.Linear` whose output features can be operated on."""

    features_last = True


class EmbeddingWithNeuronOps(_Constructed, nn.Embedding):  # type: ignore[misc]  # its argument has another name
    """`torch.nn.Embedding` whose features can be operated on."""

    features_last = True
    out_axis = 1
    in_axis = -1


class BatchNorm2dWithNeuronOps(NormEdits, ModuleWithOps, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that follows the neurons of the convolution before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        nn.BatchNorm2d.__init__(self, *args, **kwargs)
        self._init_ops()

    @property
    def neuron_count(self) -> int:
        return int(self.num_features)
