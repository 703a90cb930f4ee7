"""A network whose neurons can be watched and operated on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from graybox.dependencies import Dependencies, DepType, Edge
from graybox.errors import Invalid, NotFound, Refused
from graybox.module_walk import walk
from graybox.modules_with_ops import ModuleWithOps, NeuronLayer
from graybox.network_edits import NetworkEdits
from graybox.neuron_readings import rows_of
from graybox.scalings import Scaling, update_scalings
from graybox.structure import Structure
from graybox.structure.declared import Declared, declared_trace
from graybox.tracking import Ledger, TrackingMode
from graybox.wiring import wire_declared, wire_traced

__all__ = ["DepType", "NetworkWithOps"]


class NetworkWithOps(NetworkEdits, nn.Module):
    """Inherit from it, build with layers from `graybox.modules_with_ops`, declare which layer follows which; or make
    any network one with `graybox.operable`.

    Triggers are counted on the tensor that the next weighted layer consumes, which the declared dependencies tell or,
    where nothing is declared, a run on `example_input` (a tensor, a tuple of arguments or a dict of keyword arguments).
    The layer that nothing consumes is the output: its neurons trigger when they are the prediction.
    """

    def __init__(self) -> None:
        super().__init__()
        self._init_network()

    def _init_network(self) -> None:
        self.ledger = Ledger()
        self.example_input: Any = None
        self._structure: Structure | None = None
        self.flatten_conv_id: int | None = None
        self.dependencies = Dependencies()
        self._age = 0
        self._wired: tuple[NeuronLayer, ...] = ()
        self._named: tuple[tuple[NeuronLayer, ...], list[tuple[str, NeuronLayer]]] | None = None
        # In a tuple, or it would be registered as a submodule a second time.
        self._output: tuple[NeuronLayer, ...] = ()
        self._architecture_listeners: list[Callable[[NetworkWithOps], None]] = []

    def __getstate__(self) -> dict[str, Any]:
        # The structure is found again where it is asked for; who trains a copy nobody knows.
        return {**self.__dict__, "_structure": None, "_surgeon": None, "_journalled": None}

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
        self._structure = None
        self.rewire()

    @property
    def layers(self) -> list[NeuronLayer]:
        """The layers whose neurons can be operated on, in module order."""
        layers = tuple(m for m in walk(self) if isinstance(m, NeuronLayer))
        if layers != self._wired:
            self.rewire()
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
        if self._named is None or self._named[0] is not self._wired:
            names = {id(module): name for name, module in self.named_modules()}
            self._named = (self._wired, [(names[id(layer)], layer) for layer in layers])
        return list(self._named[1])

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
        """Parameters with one entry for each of the layer's neurons along some axis (`update_scalings` tells which):
        its own, and its normalisations' gain and shift."""
        modules = [layer, *self.followers(layer)]
        found = []
        for module in modules:
            for parameter in module.parameters(recurse=False):
                axis = layer.out_axis if parameter is layer.weight else 0
                if parameter.dim() > axis and parameter.shape[axis] == layer.neuron_count:
                    found.append(parameter)
        return found

    def followers(self, layer: NeuronLayer) -> list[nn.Module]:
        """Normalisations that carry exactly this layer's neurons: as declared, or else as the structure tells."""
        if self.dependencies.edges or not self.is_traceable:
            return self.dependencies.followers(layer)
        modules = dict(self.named_modules())
        names = {f.tensor.rpartition(".")[0]: None for f in self.structure.followers(self.name_of(layer))}
        return [modules[name] for name in names]

    def name_of(self, layer: nn.Module) -> str:
        """The qualified name of a module. Raises NotFound for one of another network."""
        for name, module in self.named_modules():
            if module is layer:
                return str(name)
        raise NotFound(f"{type(layer).__name__} is not part of this network")

    def update_scalings(self) -> list[Scaling]:
        """The factors on the update of parameters that are not 1 everywhere: freezes and learning rates of neurons
        (their normalisation included), biases and incoming connections."""
        return update_scalings(self)

    # -- what belongs together ---------------------------------------------------------------------------

    @property
    def is_traceable(self) -> bool:
        """Whether there is an example input to run the network on."""
        return self.example_input is not None

    @property
    def structure(self) -> Structure:
        """Which entries of which tensors belong to which neurons: from the declared dependencies, which win, or from a
        run on the example input. Found when it is first asked for. Raises Refused where there is neither."""
        if self._structure is None:
            if self.dependencies.edges:
                self._structure = self._declared_structure()
            elif self.is_traceable:
                self._structure = Structure.trace(self, self.example_input)
            else:
                raise Refused(
                    "it is not known which layer follows which: declare it by register_dependencies, or give the "
                    "network an example_input to be run on"
                )
        return self._structure

    def forget_structure(self) -> None:
        """Tensors were exchanged from outside, as by a checkpoint: find the structure and where to count anew."""
        self._structure = None
        self.rewire()

    def _declared_structure(self) -> Structure:
        rates: dict[str, float] = {}
        if self.is_traceable:  # how often each weight is used, for the multiply-adds
            with contextlib.suppress(Invalid):  # it cannot be looked at, and need not be
                for contraction in Structure.trace(self, self.example_input).contractions:
                    rates[contraction.weight] = rates.get(contraction.weight, 0.0) + contraction.multiplicity
        names = {id(module): name for name, module in self.named_modules()}
        same = self.dependencies.same_layers
        layers = [
            Declared(
                name, layer.out_axis, layer.in_axis, int(getattr(layer, "groups", 1)), layer.features_last,
                tuple(names[id(m)] for m in self.dependencies.followers(layer)),
                tuple(names[id(m)] for m in self.dependencies.producers(layer)),
                tuple(names[id(m)] for m in same(layer)),
            )
            for name, layer in self.named_layers()
        ]  # fmt: skip
        return Structure(
            self,
            declared_trace(self, layers, rates),
            self.example_input,
            lambda: declared_trace(self, layers, rates),
            declared=True,
        )

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter or buffer by its qualified name. Raises NotFound."""
        owner, _, key = name.rpartition(".")
        module = dict(self.named_modules()).get(owner) if owner not in self._modules else self._modules[owner]
        value = None if module is None else module._parameters.get(key, module._buffers.get(key))
        if value is None:
            raise NotFound(f"no tensor {name!r} in this network")
        return value

    def put_tensor(self, name: str, value: torch.Tensor) -> None:
        """Put a parameter or buffer in the place of another, in every module that shares it."""
        old = self.tensor(name)
        for module in self.modules():
            for table in (module._parameters, module._buffers):
                for key, known in table.items():
                    if known is old:
                        table[key] = value  # type: ignore[assignment]  # each kind stays in its own table

    def get_parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def register_hook_fn_for_architecture_change(self, function: Callable[[NetworkWithOps], None]) -> None:
        """Call `function(model)` after every edit that changes the structure."""
        self._architecture_listeners.append(function)

    def announce_architecture_change(self) -> None:
        """Call what `register_hook_fn_for_architecture_change` registered; whoever edited the network does."""
        for function in self._architecture_listeners:
            function(self)

    def rewire(self) -> None:
        """Find anew which layers there are and where the neurons of each are read: after tensors were exchanged."""
        modules = [m for m in walk(self) if isinstance(m, ModuleWithOps)]
        for number, module in enumerate(modules):
            if module._module_id != number or module.ledger is not self.ledger:  # setting it again is slow
                module._module_id = number
                module.ledger = self.ledger
        layers = tuple(m for m in modules if isinstance(m, NeuronLayer))
        if layers != self._wired:
            self._wired = layers
        if self.dependencies.edges or not self.is_traceable:
            output = wire_declared(self._wired, self.dependencies)
        else:
            output = wire_traced(self.named_layers(), self.structure)
        self._output = () if output is None else (output,)
        if output is not None:
            output.triggers_counted_by = "prediction"
        loose = [layer for layer in self._wired if not layer.triggers_counted_by]
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
        if not torch.compiler.is_compiling() and self.tracking_mode is TrackingMode.TRAIN:
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
            self.rewire()  # nobody declared or asked for anything yet, so the layers do not know this ledger
        self.ledger.mode = mode
        self.ledger.prediction_registered = False

    def register_prediction(self, predictions: torch.Tensor, classes: int) -> None:
        """Count the output layer's triggers from predicted classes, int64 [batch] in [0, classes), unless forward
        registered them itself or the output layer has no neuron per class."""
        if self.ledger.mode is TrackingMode.DISABLED or self.ledger.prediction_registered or not self._output:
            return
        output = self._output[0]
        if output.neuron_count == classes:
            output.records.observe_prediction(self.ledger, predictions)

    def remember_weights(self, copies: Mapping[str, torch.Tensor] | None = None) -> None:
        """From now on neurons tell how much they have changed since this moment: by a copy of the layers' weights.

        copies: of the state_dict as it is now, on the CPU, that nobody changes until this is called again; weights on
        the CPU are then not copied once more."""
        for name, layer in self.named_layers():
            weight, copy = layer.weight, (copies or {}).get(f"{name}.weight")
            if copy is None or weight.device.type != "cpu" or (copy.shape, copy.dtype) != (weight.shape, weight.dtype):
                layer.records.keep_weights(rows_of(layer))
            else:
                layer.records.keep_weights(rows_of(layer, copy), copied=False)

    def reset_all_stats(self) -> None:
        for layer in self.layers:
            layer.reset_stats()

    def reset_stats_by_layer_id(self, layer_id: int) -> None:
        """Raises NotFound for an unknown id."""
        self.get_layer_by_id(layer_id).reset_stats()
