"""Any network, with neurons that can be watched and operated on, without touching its code."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from graybox.errors import Invalid
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import (
    Conv1dWithNeuronOps,
    Conv2dWithNeuronOps,
    Conv3dWithNeuronOps,
    ConvTranspose1dWithNeuronOps,
    ConvTranspose2dWithNeuronOps,
    ConvTranspose3dWithNeuronOps,
    EmbeddingWithNeuronOps,
    LinearWithNeuronOps,
    NeuronLayer,
)
from graybox.structure import Structure, WeightedLayer

_KNOWN: dict[type[nn.Module], type[NeuronLayer]] = {
    nn.Conv1d: Conv1dWithNeuronOps,
    nn.Conv2d: Conv2dWithNeuronOps,
    nn.Conv3d: Conv3dWithNeuronOps,
    nn.ConvTranspose1d: ConvTranspose1dWithNeuronOps,
    nn.ConvTranspose2d: ConvTranspose2dWithNeuronOps,
    nn.ConvTranspose3d: ConvTranspose3dWithNeuronOps,
    nn.Embedding: EmbeddingWithNeuronOps,
    nn.Linear: LinearWithNeuronOps,
}
_CONVOLUTIONS = nn.modules.conv._ConvNd


class OperableNetwork(NetworkWithOps):
    """A network with ops around any other. The two share modules, parameters and buffers under the same names: train,
    save and load either; both see every edit. Attributes that it does not have itself are the plain network's."""

    def __init__(self, model: nn.Module, example_input: Any) -> None:
        super().__init__()
        plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
        self.__dict__["_plain"] = plain
        self.__dict__["_callable"] = model
        self._modules, self._parameters, self._buffers = plain._modules, plain._parameters, plain._buffers
        self._non_persistent_buffers_set = plain._non_persistent_buffers_set
        self.training = plain.training
        self.example_input = tree_map(_detached, example_input)
        if isinstance(plain, NetworkWithOps) and plain.dependencies.edges:
            self.dependencies = plain.dependencies  # what is declared wins
        else:
            self._structure = Structure.trace(self, self.example_input)
            make_layers(self._structure, plain)
        self.rewire()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the plain network."""
        if args and isinstance(args[0], torch.Tensor):
            self.maybe_update_age(args[0])
        return self._callable(*args, **kwargs)

    def get_submodule(self, target: str) -> nn.Module:
        """As the plain network, whose modules may have names that this class has other things by."""
        return self._plain.get_submodule(target) if target else self

    def train(self, mode: bool = True) -> OperableNetwork:
        """As the plain network."""
        self._plain.train(mode)
        self.training = mode
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            plain = self.__dict__.get("_plain")
            if plain is None or name.startswith("__"):
                raise
            return getattr(plain, name)


def operable(model: nn.Module, example_input: Any) -> NetworkWithOps:
    """Make a network's neurons operable: run it once on the example input, without numbers, to see what belongs
    together.

    model: any nn.Module. example_input: what its forward takes: a tensor, a tuple of arguments or a dict of keyword
    arguments; a batch of one is enough. Answers a network that shares modules and parameters with `model`, which
    stays usable; call the answer where neurons are to be watched.

    Raises Invalid when the model cannot be run on the input, or has no weights.
    """
    if isinstance(model, NetworkWithOps):
        model.example_input = tree_map(_detached, example_input)
        if model.dependencies.edges:
            model._structure = None  # as declared, and with what the input tells of multiply-adds
        else:
            make_layers(Structure.trace(model, model.example_input), model)
            model.forget_structure()
        return model
    if not isinstance(model, nn.Module):
        raise Invalid(f"a model is a torch.nn.Module, not a {type(model).__name__}")
    return OperableNetwork(model, example_input)


def make_layers(structure: Structure, model: nn.Module) -> None:
    """Give the layers of a network neurons. Raises Invalid where there is none."""
    if not structure.layers:
        raise Invalid(f"{type(model).__name__} multiplies its input with no weight, so that it has no neurons")
    for name, layer in structure.layers.items():
        make_layer(structure.modules.get(name), name, layer)
    _without_fast_paths(model)


def make_layer(module: nn.Module | None, name: str, layer: WeightedLayer) -> None:
    """Give a plain module neurons. A weight that belongs to no module of its own name, or is shared by a grouped
    transposed convolution's groups, gets none: it still follows the edits of others."""
    if module is None or isinstance(module, NeuronLayer) or (layer.in_axis == 0 and layer.groups > 1):
        return
    if layer.weight.rpartition(".")[2] not in ("weight", "in_proj_weight"):
        return
    if any(name in module.__dict__ or hasattr(type(module), name) for name in _TAKEN):
        return  # its own code uses these names for something else
    plain = type(module)
    module.__class__ = _KNOWN.get(plain) or _class_for(plain, layer)
    assert isinstance(module, NeuronLayer)
    module._init_ops()


_TAKEN = (set(dir(NeuronLayer)) - set(dir(nn.Module)) - {"_abc_impl"}) | {
    "records", "frozen", "bias_frozen", "neuron_learning_rate", "incoming_frozen", "incoming_learning_rate", "ledger",
    "readings", "reads_triggers_of", "triggers_counted_by", "neuron_identity", "incoming_identity",
}  # fmt: skip
"""Names that a layer with neurons has beside those of every module."""
_MADE: dict[tuple[type[nn.Module], int, int], type[NeuronLayer]] = {}


def _class_for(plain: type[nn.Module], layer: WeightedLayer) -> type[NeuronLayer]:
    """A class of its own for a module of the user's, or of a library's."""
    key = (plain, layer.out_axis, layer.in_axis)
    if key not in _MADE:
        body: dict[str, Any] = {
            "__doc__": f"`{plain.__name__}` whose neurons can be operated on.",
            "__module__": plain.__module__,
            "__reduce_ex__": _reduce,
            "out_axis": layer.out_axis,
            "in_axis": layer.in_axis,
            "features_last": not issubclass(plain, _CONVOLUTIONS),
        }
        if layer.weight.endswith("in_proj_weight"):
            body["weight"] = property(lambda module: module.in_proj_weight)
            body["bias"] = property(lambda module: module.in_proj_bias)
        _MADE[key] = type(f"{plain.__name__}WithNeuronOps", (NeuronLayer, plain), body)
    return _MADE[key]


def _reduce(module: nn.Module, protocol: Any) -> Any:
    # Pickled by what it is made of: the class is made anew where it is loaded.
    kind: Any = type(module)
    plain = kind.__bases__[1]
    return (
        _remade,
        (plain, kind.out_axis, kind.in_axis, isinstance(kind.__dict__.get("weight"), property)),
        module.__dict__,
    )


def _remade(plain: type[nn.Module], out_axis: int, in_axis: int, packed: bool) -> nn.Module:
    weight = "in_proj_weight" if packed else "weight"
    made = _class_for(plain, WeightedLayer("", weight, out_axis, in_axis, None))
    return made.__new__(made)


def _without_fast_paths(model: nn.Module) -> None:
    """Transformer layers skip their own modules in evaluation mode, unless one of these has a hook."""
    for module in model.modules():
        if isinstance(module, (nn.TransformerEncoderLayer, nn.MultiheadAttention)):
            module.register_forward_pre_hook(_nothing)


def _nothing(module: nn.Module, args: tuple[Any, ...]) -> None:
    return None


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


__all__ = ["OperableNetwork", "operable"]
