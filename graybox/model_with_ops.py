"""A network whose neurons can be watched and operated on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import nn

from graybox.dependencies import Dependencies, DepType, Edge
from graybox.errors import Invalid, NotFound
from graybox.modules_with_ops import ModuleWithOps, NeuronLayer
from graybox.tracking import Ledger, TrackingMode

__all__ = ["DepType", "NetworkWithOps"]


class NetworkWithOps(nn.Module):
    """Inherit from it, build with layers from `graybox.modules_with_ops`, declare which layer follows which.

    Triggers are counted on the tensor that the next weighted layer consumes, which the declared dependencies tell.
    The layer that nothing consumes is the output: its neurons trigger when they are the prediction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.flatten_conv_id: int | None = None
        self.dependencies = Dependencies()
        self._age = 0
        self._wired: tuple[NeuronLayer, ...] = ()
        # In a tuple, or it would be registered as a submodule a second time.
        self._output: tuple[NeuronLayer, ...] = ()
        self._architecture_listeners: list[Callable[[NetworkWithOps], None]] = []

    # -- structure --------------------------------------------------------------------------------

    def register_dependencies(self, dependencies: Iterable[Edge]) -> None:
        """Declare (module, module, DepType): INCOMING, the second consumes the first one's neurons; SAME, it has the
        same ones. Gives every layer its number. Raises Invalid for a malformed edge, or one to a module that is not in
        this network; the dependencies are what they were then."""
        declared = Dependencies(dependencies)
        known = {id(module) for module in self.modules()}
        for module in (end for edge in declared.edges for end in edge[:2]):
            if id(module) not in known:
                raise Invalid(f"a dependency names {module}, which is not part of this network; name its own modules")
        self.dependencies = declared
        self._wire()

    @property
    def layers(self) -> list[NeuronLayer]:
        """The layers whose neurons can be operated on, in module order."""
        layers = tuple(m for m in self.modules() if isinstance(m, NeuronLayer))
        if layers != self._wired:
            self._wire()
        return list(layers)

    def get_layer_by_id(self, layer_id: int) -> NeuronLayer:
        """Raises NotFound for an id that no layer with neurons has."""
        for layer in self.layers:
            if layer.get_module_id() == layer_id:
                return layer
        known = ", ".join(f"{layer.get_module_id()} ({name})" for name, layer in self.named_layers())
        raise NotFound(f"no layer {layer_id} in this network; it has {known or 'no layer with neuron operations'}")

    def named_layers(self) -> list[tuple[str, NeuronLayer]]:
        """(qualified name, layer), in module order."""
        layers = self.layers
        names = {id(module): name for name, module in self.named_modules()}
        return [(names[id(layer)], layer) for layer in layers]

    def find_layer(self, reference: str) -> tuple[str, NeuronLayer]:
        """(qualified name, layer) of a layer named by its qualified name or by its id as text. Raises NotFound."""
        for name, layer in self.named_layers():
            if reference == name or reference == str(layer.get_module_id()):
                return name, layer
        known = ", ".join(f"{layer.get_module_id()} ({name})" for name, layer in self.named_layers())
        raise NotFound(f"no layer {reference!r} in this network; it has {known or 'no layer with neuron operations'}")

    def consumers(self, layer: NeuronLayer) -> list[NeuronLayer]:
        """Layers that consume the layer's neurons, as declared."""
        return self.dependencies.consumers(layer)

    def output_layer(self) -> NeuronLayer | None:
        """The one layer that nothing consumes: the last such in module order; None in a network without layers."""
        return self._output[0] if self.layers and self._output else None

    def neuron_parameters(self, layer: NeuronLayer) -> list[nn.Parameter]:
        """Parameters with one row for each of the layer's neurons: its own, and its normalisations' gain and shift."""
        modules = [layer, *self.dependencies.followers(layer)]
        return [p for module in modules for p in module.parameters(recurse=False) if has_rows(p, layer.neuron_count)]

    def get_parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def register_hook_fn_for_architecture_change(self, function: Callable[[NetworkWithOps], None]) -> None:
        """Call `function(model)` after every edit that changes the structure."""
        self._architecture_listeners.append(function)

    def _wire(self) -> None:
        modules = [m for m in self.modules() if isinstance(m, ModuleWithOps)]
        for number, module in enumerate(modules):
            module._module_id = number
        layers = tuple(m for m in modules if isinstance(m, NeuronLayer))
        self._wired = layers
        readers: dict[int, list[NeuronLayer]] = {id(layer): [] for layer in layers}
        output = None
        for layer in layers:
            consumers = [c for c in self.dependencies.consumers(layer) if id(c) in readers]
            # Several may consume it (a residual block's branches); they see the same tensor, one counts.
            countable = bool(consumers) and self.dependencies.positions(layer, consumers[0]) is not None
            layer.triggers_counted_by = "consumer" if countable else ""
            if countable:
                readers[id(consumers[0])].append(layer)
            elif not consumers:
                output = layer
        if output is not None:
            output.triggers_counted_by = "prediction"
        for layer in layers:
            layer.reads_triggers_of = tuple(readers[id(layer)])
        for module in modules:
            module.ledger = self.ledger
        self._output = () if output is None else (output,)
        loose = [layer for layer in layers if not layer.triggers_counted_by]
        if loose and self.dependencies.edges:
            names = {id(module): name for name, module in self.named_modules()}
            warnings.warn(
                f"what consumes {', '.join(names[id(layer)] for layer in loose)} is not declared, or does not fit it "
                "neuron by neuron (a concatenation): triggers are counted on the layer's own output; declare (layer, "
                "next layer, DepType.INCOMING)",
                stacklevel=3,
            )

    # -- age and statistics ------------------------------------------------------------------------

    def get_age(self) -> int:
        """Samples seen in training."""
        return self._age

    def set_age(self, age: int) -> None:
        """Set by whoever owns the training."""
        self._age = age

    def maybe_update_age(self, x: torch.Tensor) -> None:
        """Call it with the input at the start of forward: in training mode the age grows by the batch."""
        if self.tracking_mode is TrackingMode.TRAIN:
            self._age += int(x.shape[0])

    @property
    def tracking_mode(self) -> TrackingMode:
        """Which statistics a forward pass adds to: one mode for the whole network."""
        return self.ledger.mode

    @tracking_mode.setter
    def tracking_mode(self, mode: TrackingMode) -> None:
        self.set_tracking_mode(mode)

    def set_tracking_mode(self, mode: TrackingMode) -> None:
        """Which statistics the next forward passes add to."""
        if not self._wired:
            self._wire()  # nobody declared or asked for anything yet, so the layers do not know this ledger
        self.ledger.mode = mode
        self.ledger.prediction_registered = False

    def register_prediction(self, predictions: torch.Tensor, classes: int) -> None:
        """Count the output layer's triggers from predicted classes, int64 [batch] in [0, classes), unless forward
        registered them itself or the output layer has no neuron per class."""
        if self.ledger.mode is TrackingMode.DISABLED or self.ledger.prediction_registered or not self._output:
            return
        output = self._output[0]
        if output.neuron_count == classes:
            counts = torch.zeros(classes, dtype=torch.float64, device=predictions.device)
            counts.index_add_(0, predictions, torch.ones_like(predictions, dtype=torch.float64))
            output.count_shares(counts, predictions.shape[0])

    def reset_all_stats(self) -> None:
        for layer in self.layers:
            layer.reset_stats()

    def reset_stats_by_layer_id(self, layer_id: int) -> None:
        """Raises NotFound for an unknown id."""
        self.get_layer_by_id(layer_id).reset_stats()


def has_rows(tensor: torch.Tensor, neurons: int) -> bool:
    """Whether a tensor has one row per neuron. One number for all of them (nn.PReLU's) belongs to none of them."""
    return tensor.dim() > 0 and tensor.shape[0] == neurons
