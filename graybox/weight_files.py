"""A network's weights as files that others read: an ordinary state_dict, or safetensors."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from graybox import __version__
from graybox.errors import Invalid, NotFound, StorageError
from graybox.plain_network import inner_network, plain_class
from graybox.store.files import write_atomically
from graybox.structure.attributes import shape_attributes

Shape = tuple[int, ...]
Attributes = dict[str, dict[str, Any]]
_EXTRA_STATE = "_extra_state"
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""What a file of torch.save begins with, today and years ago."""


@dataclass(frozen=True)
class Weights:
    """What goes into a file: by their names in the plain network, tensors on the CPU.

    attributes: by module, the numbers that say its size now, such as out_channels. modules: by name, the plain class
    of each module with tensors; {} where it is not known. built: the shapes as the user's code builds the network;
    None where that is not known. class_names: of what the network tells apart. others: facts worth telling, as text.
    """

    tensors: Mapping[str, Any]
    attributes: Attributes = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    built: Mapping[str, Shape] | None = None
    class_names: Sequence[str] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    def changes(self) -> dict[str, dict[str, list[int] | None]] | None:
        """By tensor, its shape as built and as it is now, where they differ; None where the first is not known."""
        if self.built is None:
            return None
        now = {name: list(value.shape) for name, value in self.tensors.items() if isinstance(value, torch.Tensor)}
        built = {name: list(shape) for name, shape in self.built.items() if not name.endswith(_EXTRA_STATE)}
        return {
            name: {"built": built.get(name), "now": now.get(name)}
            for name in [*now, *(set(built) - set(now))]
            if built.get(name) != now.get(name)
        }

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it: text by name, what is no text as JSON."""
        found = {"format": "pt", "graybox": __version__, **self.others}
        told: dict[str, Any] = {
            "attributes": self.attributes,
            "module_classes": self.modules,
            "structure_changes": self.changes(),
            "class_names": list(self.class_names),
        }
        return {**found, **{name: json.dumps(value) for name, value in told.items() if value}}


def weights_of(model: nn.Module, class_names: Sequence[str] = (), built: Mapping[str, Shape] | None = None) -> Weights:
    """Those of a network with Graybox or without, as they are now; see Weights."""
    network = inner_network(model)
    state = network.state_dict()
    # What is one tensor under two names stays so, and what is a part of a large one takes no more than itself.
    copies: dict[object, torch.Tensor] = {}
    tensors: OrderedDict[str, Any] = OrderedDict()
    for name, value in state.items():
        tensors[name] = value
        if isinstance(value, torch.Tensor):
            place = (value.device, value.data_ptr(), value.shape, value.stride()) if is_plain(value) else name
            if place not in copies:
                copies[place] = value.detach().cpu().clone()
            tensors[name] = copies[place]
    if hasattr(state, "_metadata"):
        tensors._metadata = state._metadata  # type: ignore[attr-defined]  # versions of modules, for load_state_dict
    owners = {
        name: f"{kind.__module__}.{kind.__qualname__}"
        for name, module in network.named_modules()
        if (module._parameters or module._buffers) and (kind := plain_class(type(module)))
    }
    kind = plain_class(type(network))
    others = {} if kind is nn.Module else {"network": f"{kind.__module__}.{kind.__qualname__}"}
    return Weights(tensors, shape_attributes(network), owners, built, class_names, others)


def is_plain(value: torch.Tensor) -> bool:
    """Whether a tensor lies somewhere in memory, and something is in it."""
    return value.layout is torch.strided and value.numel() > 0


def save_state_dict(
    model: nn.Module | Weights, path: Path | str, *, class_names: Sequence[str] = (), built: Any = None
) -> None:
    """Write a network's weights as torch.save(network.state_dict()) would write those of the plain network: anybody
    reads them with torch.load, weights_only or not. On the CPU, whole or not at all. Nothing but tensors is in it:
    class_names and built are for `save_safetensors`.

    Raises StorageError naming the path when the disk refuses.
    """
    weights = model if isinstance(model, Weights) else weights_of(model, class_names, built)
    write_atomically(Path(path), lambda file: torch.save(weights.tensors, file))


def save_safetensors(
    model: nn.Module | Weights,
    path: Path | str,
    *,
    class_names: Sequence[str] = (),
    built: Mapping[str, Shape] | None = None,
) -> None:
    """Write a network's weights as safetensors, whole or not at all. In its metadata, as JSON: `attributes` (by module,
    the numbers that say its size), `module_classes`, `class_names` and, where `built` gives the shapes that the user's
    code makes, `structure_changes` (by tensor, its shape as built and now). A tensor of two names is in it twice, so
    that whoever reads it finds every name.

    Raises Invalid for what safetensors cannot hold, StorageError naming the path when the disk refuses.
    """
    weights = model if isinstance(model, Weights) else weights_of(model, class_names, built)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in weights.tensors.items():
        if not isinstance(value, torch.Tensor):
            raise Invalid(f"safetensors holds tensors only, and {name} is a {type(value).__name__}: save a state_dict")
        if value.layout is not torch.strided or value.is_quantized:
            raise Invalid(f"safetensors holds dense tensors only, and {name} is not: save a state_dict")
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    try:
        content = safetensors.torch.save(tensors, weights.metadata())
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise Invalid(f"safetensors cannot hold these weights ({error}): save a state_dict") from error
    write_atomically(Path(path), content)


def read_weights(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tensors by name, on the CPU; what the metadata says, parsed) of a file of either kind, told by its first bytes.

    Raises NotFound for a missing file, StorageError for one that is broken, Invalid for one that holds anything but
    tensors by name.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            beginning = file.read(4)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if beginning == ZIP or beginning[:1] == PICKLE:
        return _read_state_dict(path), {}
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
    except (safetensors.SafetensorError, OSError) as error:
        raise StorageError(f"{path} is neither a state_dict nor safetensors, or broken: {error}") from error
    return tensors, {name: _parsed(value) for name, value in metadata.items()}


def _read_state_dict(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes lead it to
        raise StorageError(f"{path} cannot be read as tensors: {error}") from error
    if not isinstance(found, Mapping) or not found:
        raise Invalid(f"{path} holds a {type(found).__name__}; weights are a dict of tensors by name, a state_dict")
    strange = [
        f"{name!r:.60} ({type(value).__name__})"
        for name, value in found.items()
        if not isinstance(value, torch.Tensor) and not str(name).endswith(_EXTRA_STATE)
    ]
    if strange:
        raise Invalid(
            f"{path} holds more than tensors by name: {', '.join(strange[:10])}; save the state_dict in it alone"
        )
    return {str(name): value for name, value in found.items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any], *, any_size: bool = False) -> list[str]:
    """Everything by which tensors do not fit those of the same names, for people; [] where they do.

    any_size: other lengths are no difference, as long as there are as many of them.
    """
    told = [f"{name} is missing there" for name in wanted if name not in found]
    told += [f"{name} is not in this network" for name in found if name not in wanted]
    for name, there in found.items():
        here = wanted.get(name)
        if not isinstance(here, torch.Tensor) or not isinstance(there, torch.Tensor):
            continue
        fits = here.dim() == there.dim() if any_size else here.shape == there.shape
        if not fits:
            told.append(f"{name} has the shape {list(there.shape)} there and {list(here.shape)} here")
        if not torch.can_cast(there.dtype, here.dtype):
            told.append(f"{name} is {there.dtype} there and {here.dtype} here")
    return told


def parameter_count(tensors: Mapping[str, Any]) -> int:
    """How many numbers there are in all of them."""
    return sum(math.prod(value.shape) for value in tensors.values() if isinstance(value, torch.Tensor))
