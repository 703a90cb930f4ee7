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
            if edge[2] is DepType.INCOMING and not is_weighted(edge[1]):
                raise Invalid(
                    f"{type(edge[1]).__name__} cannot consume neurons: it is no layer with neuron operations; declare "
                    "a normalisation as DepType.SAME, and build weighted layers from graybox.modules_with_ops"
                )
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
                assert isinstance(target, NeuronLayer)  # checked when it was declared
                found.append(target)
        return found

    def producers(self, consumer: NeuronLayer) -> list[NeuronLayer]:
        """Weighted layers whose neurons the layer consumes, in the order of declaration."""
        found: list[NeuronLayer] = []
        for source, target, kind in self.edges:
            if kind is DepType.INCOMING and target is consumer:
                for producer in self._carried_by(source):
                    if producer not in found:
                        found.append(producer)
        return found

    def same_layers(self, layer: NeuronLayer) -> list[NeuronLayer]:
        """Weighted layers declared to have the same neurons as this one (or as its normalisation): a sum of both."""
        sources = [layer, *self.followers(layer)]
        return [
            target
            for source, target, kind in self.edges
            if kind is DepType.SAME and isinstance(target, NeuronLayer) and any(source is s for s in sources)
        ]

    def _carried_by(self, module: nn.Module) -> list[NeuronLayer]:
        """Weighted layers whose neurons a module has: itself, or those before a normalisation."""
        if isinstance(module, NeuronLayer):
            return [module]
        layers = {id(end): end for edge in self.edges for end in edge[:2] if isinstance(end, NeuronLayer)}
        return [layer for layer in layers.values() if any(f is module for f in self.followers(layer))]

    def positions(self, layer: NeuronLayer, consumer: NeuronLayer) -> int | None:
        """From how many positions each of the layer's neurons is flattened into the consumer's incoming ones: 1 where
        they are the same in number; None where the two do not fit neuron by neuron, as behind a concatenation."""
        incoming, neurons = consumer.incoming_neuron_count, layer.neuron_count
        if incoming == neurons:
            return 1
        if not consumer.features_last or neurons == 0 or incoming % neurons:
            return None
        counts = [producer.neuron_count for producer in self.producers(consumer)]
        # Several side by side, or a sum of several flattened: told apart by whether they fill the input exactly.
        return None if len(counts) > 1 and sum(counts) == incoming else incoming // neurons


def is_weighted(module: nn.Module) -> bool:
    """Whether the module has neurons with weights of their own (a convolution or a linear layer with operations)."""
    return isinstance(module, NeuronLayer)


def _is_edge(edge: object) -> bool:
    return (
        isinstance(edge, (tuple, list))
        and len(edge) == 3
        and isinstance(edge[0], nn.Module)
        and isinstance(edge[1], nn.Module)
        and isinstance(edge[2], DepType)
    )
