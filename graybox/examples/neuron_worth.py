"""What each neuron is worth to the loss, from the weights that consume it and their gradients."""

from __future__ import annotations

import numpy as np
import torch

from graybox.model_with_ops import NetworkWithOps


class Worth:
    """Adds up, over training steps, how much the loss would change if a neuron were not there.

    To first order that is the gradient of a gate on the neuron, which is the sum of weight * gradient over all weights
    that consume it; its square, averaged over steps, is the importance of Molchanov, Mallya, Tyree, Frosio and Kautz,
    Importance Estimation for Neural Network Pruning, CVPR 2019 (equations 6 to 8). The sum is over outgoing
    weights, not a neuron's own: behind a normalisation those of a neuron have no say in its scale, so that the sum
    over them is zero. Weights are as they are after the step, one update later than their gradients.

    Layers that are consumed by grouped convolutions are not for it.
    """

    def __init__(self, model: NetworkWithOps) -> None:
        self.model = model
        self._columns: dict[str, list[tuple[str, torch.Tensor, torch.Tensor]]] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        model.register_hook_fn_for_architecture_change(lambda _: self.forget())

    def forget(self) -> None:
        """Start anew, as after an edit."""
        self._columns, self._sums, self._steps = {}, {}, 0

    @torch.no_grad()
    def watch(self) -> None:
        """A step was made: take in its gradients."""
        for layer, change in self._per_neuron(with_gradients=True).items():
            known = self._sums.get(layer)
            self._sums[layer] = change.square() if known is None else known + change.square()
        self._steps += 1

    def scores(self) -> dict[str, np.ndarray]:
        """By layer, float64 [neurons]: mean squared change of the loss."""
        return {layer: (total / self._steps).cpu().numpy() for layer, total in self._sums.items()}

    @torch.no_grad()
    def outgoing_norms(self) -> dict[str, np.ndarray]:
        """By layer, float64 [neurons]: the Euclidean norm of the weights that consume each."""
        return {layer: total.sqrt().cpu().numpy() for layer, total in self._per_neuron(with_gradients=False).items()}

    def _per_neuron(self, *, with_gradients: bool) -> dict[str, torch.Tensor]:
        """By layer, float64 [neurons]: the sum of weight * gradient, or of weight squared, over what consumes each."""
        found: dict[str, torch.Tensor] = {}
        layers = dict(self.model.named_layers())
        for consumer, sources in self._sources().items():
            layer = layers[consumer]
            weight = layer.weight
            gradient = weight.grad if with_gradients else weight
            if gradient is None:
                continue
            each = (weight * gradient).movedim(layer.in_axis, 0).flatten(1).sum(1, dtype=torch.float64)
            for producer, columns, neurons in sources:
                count = layers[producer].neuron_count
                total = found.setdefault(producer, torch.zeros(count, dtype=torch.float64, device=each.device))
                total.index_add_(0, neurons.to(each.device), each[columns.to(each.device)])
        return found

    def _sources(self) -> dict[str, list[tuple[str, torch.Tensor, torch.Tensor]]]:
        """By consuming layer: (layer, columns of the consumer's weight, the neuron that each one multiplies)."""
        if not self._columns:
            for consumer, _ in self.model.named_layers():
                pairs: dict[str, list[tuple[int, int]]] = {}
                for column, feeding in enumerate(self.model.structure.incoming(consumer)):
                    for producer, neuron in feeding:
                        pairs.setdefault(producer, []).append((column, neuron))
                # The types cannot tell that the star stands for two tensors.
                self._columns[consumer] = [
                    (producer, *(torch.tensor(part) for part in zip(*found, strict=True)))  # type: ignore[misc]
                    for producer, found in pairs.items()
                ]
        return self._columns
