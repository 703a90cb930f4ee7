"""Numbers that modules keep beside their tensors, and that have to follow them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

Shape = tuple[int, ...]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.modules.batchnorm._NormBase,)


def attributes_for(module: nn.Module, shapes: Mapping[str, Shape], groups: int | None) -> dict[str, int | Shape]:
    """What a module's attributes should be, by name, when its own tensors have these shapes.

    groups: of a grouped convolution or normalisation, None where it stays.
    """
    weight = shapes.get("weight")
    wanted: dict[str, int | Shape] = {}
    if weight is None:
        pass
    elif isinstance(module, CONVOLUTIONS):
        number = module.groups if groups is None else groups
        wanted = {"out_channels": weight[0], "in_channels": weight[1] * number, "groups": number}
    elif isinstance(module, TRANSPOSED):
        number = module.groups if groups is None else groups
        wanted = {"in_channels": weight[0], "out_channels": weight[1] * number, "groups": number}
    elif isinstance(module, nn.Linear):
        wanted = {"out_features": weight[0], "in_features": weight[1]}
    elif isinstance(module, nn.Embedding):
        wanted = {"num_embeddings": weight[0], "embedding_dim": weight[1]}
    elif isinstance(module, nn.GroupNorm):
        wanted = {"num_channels": weight[0], "num_groups": module.num_groups if groups is None else groups}
    elif isinstance(module, nn.LayerNorm):
        wanted = {"normalized_shape": tuple(weight)}
    elif isinstance(module, BATCH_NORMS):
        wanted = {"num_features": weight[0]}
    elif isinstance(module, nn.PReLU):
        wanted = {"num_parameters": weight[0]}
    elif len(weight) == 2 and hasattr(module, "nf") and hasattr(module, "nx"):  # Hugging Face's Conv1D
        wanted = {"nx": weight[0], "nf": weight[1]}
    if not wanted and isinstance(module, BATCH_NORMS) and "running_mean" in shapes:
        wanted = {"num_features": shapes["running_mean"][0]}
    return {name: value for name, value in wanted.items() if getattr(module, name, value) != value}


FOLLOWING = (
    "in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels",
    "num_groups", "num_embeddings", "embedding_dim", "normalized_shape", "num_parameters", "nx", "nf",
)  # fmt: skip
"""Every attribute that follows the shapes of some module's tensors."""


def shape_attributes(network: nn.Module) -> dict[str, dict[str, int | Shape]]:
    """By module name, what the modules of a network say of the shapes of their own tensors."""
    found: dict[str, dict[str, int | Shape]] = {}
    for name, module in network.named_modules():
        if module._parameters or module._buffers:
            values = {key: module.__dict__[key] for key in FOLLOWING if key in module.__dict__}
            if values:
                found[name] = values
    return found
