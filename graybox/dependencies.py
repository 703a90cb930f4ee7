"""Which tensors follow which neurons, as the user declared it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from torch import nn

from graybox.errors import Invalid
from graybox.modules_with_ops import NeuronLayer


class DepType(enum.Enum):
    """How the second module depends on the first one's neurons.

    INCOMING: it consumes them (its input channels or features).
    SAME: it has the same neurons (a normalisation behind a convolution).
    NONE: it does not.
    """

    INCOMING = "incoming"
    SAME = "same"
    NONE = "none"


Edge = tuple[nn.Module, nn.Module, DepType]


class Dependencies:
    """The declared edges of one network, and what can be read off them."""

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self.edges: list[Edge] = []
        for edge in edges:
            if not _is_edge(edge):
                raise Invalid(f"a dependency is (module, module, DepType), not {edge!r}")
            if edge[2] is not DepType.NONE:
                self.edges.append(edge)

    def followers(self, layer: NeuronLayer) -> list[nn.Module]:
        """Modules without weights of their own neurons (normalisations) that carry the layer's neurons on, in order."""
        found: list[nn.Module] = []
        frontier: list[nn.Module] = [layer]
        while frontier:
            module = frontier.pop(0)
            for source, target, kind in self.edges:
                if source is module and kind is DepType.SAME and not is_weighted(target) and target not in found:
                    found.append(target)
                    frontier.append(target)
        return found

    def consumers(self, layer: NeuronLayer) -> list[NeuronLayer]:
        """Weighted layers that consume the layer's neurons, in the order of declaration."""
        sources = [layer, *self.followers(layer)]
        found: list[NeuronLayer] = []
        for source, target, kind in self.edges:
            if kind is DepType.INCOMING and any(source is s for s in sources) and target not in found:
                if not isinstance(target, NeuronLayer):
                    raise Invalid(f"{type(target).__name__} has no incoming weights; declare it as DepType.SAME")
                found.append(target)
        return found


def is_weighted(module: nn.Module) -> bool:
    """Whether the module has neurons with weights of their own (a convolution or a linear layer with operations)."""
    return isinstance(module, NeuronLayer)


def _is_edge(edge: object) -> bool:
    return isinstance(edge, (tuple, list)) and len(edge) == 3 and isinstance(edge[2], DepType)
