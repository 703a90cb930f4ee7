"""Edits of a network by the names that users of the original Graybox know: each applied whole, or refused."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from graybox.errors import Invalid
from graybox.neuron_ops import AddNeurons, Freeze, NeuronEdit, Reinitialize, RemoveNeurons, SortByStat

if TYPE_CHECKING:
    from graybox.model_with_ops import NetworkWithOps
    from graybox.surgery import Surgeon


class NetworkEdits:
    """What a network with ops can do to itself, together with the optimizer that `graybox` knows to train it."""

    # A part of NetworkWithOps only, which mypy takes for a wrong type of self: hence the exceptions.
    _surgeon: Surgeon | None = None
    _journalled: Callable[[NeuronEdit], Any] | None = None

    def surgeon(self: NetworkWithOps) -> Surgeon:  # type: ignore[misc]
        """Plans and applies edits of this network: the one whose optimizer trains it, else one without an optimizer."""
        if self._surgeon is None:
            from graybox.optimizer_with_ops import OptimizerWithOps  # it imports this network
            from graybox.surgery import Surgeon

            idle = torch.optim.SGD(self.parameters(), lr=0.0)  # holds no state and never steps
            return Surgeon(self, OptimizerWithOps(idle, self))
        return self._surgeon

    def trained_by(self: NetworkWithOps, surgeon: Surgeon) -> None:  # type: ignore[misc]
        """From now on edits go through this surgeon, so that its optimizer's state follows the neurons."""
        # Past nn.Module, which would register whatever looks like a module.
        object.__setattr__(self, "_surgeon", surgeon)

    def journalled_by(self: NetworkWithOps, do: Callable[[NeuronEdit], Any] | None) -> None:  # type: ignore[misc]
        """From now on edits by the network's own names are done by this function: a run's journal. None: no longer."""
        object.__setattr__(self, "_journalled", do)

    def edit(self: NetworkWithOps, edit: NeuronEdit, seed: int | None = None) -> Any:  # type: ignore[misc]
        """Plan an edit and apply it. While a run trains the network the edit goes through its journal, and answers the
        command's outcome; else it answers what undoes it. seed: where new weights come from; None: somewhere new."""
        if self._journalled is not None and seed is None:
            return self._journalled(edit)
        surgeon = self.surgeon()
        return surgeon.apply(surgeon.plan(edit), secrets.randbits(48) if seed is None else seed)

    def freeze(self: NetworkWithOps, layer_id: int, neuron_ids: Iterable[int] | None = None) -> None:  # type: ignore[misc]
        """Neurons (None: all of the layer) get no update until unfrozen."""
        self.edit(Freeze(str(layer_id), () if neuron_ids is None else _some(neuron_ids)))

    def reinit_neurons(  # type: ignore[misc]
        self: NetworkWithOps, layer_id: int, neuron_indices: Iterable[int], perturbation_ratio: float | None = None
    ) -> None:
        """Neurons start anew, by own initialisation or a perturbation of each weight."""
        self.edit(Reinitialize(str(layer_id), _some(neuron_indices), perturbation_ratio=perturbation_ratio))

    def prune(self: NetworkWithOps, layer_id: int, neuron_indices: Iterable[int]) -> None:  # type: ignore[misc]
        """Remove neurons, and with them what consumes or follows them."""
        self.edit(RemoveNeurons(str(layer_id), _some(neuron_indices)))

    def add_neurons(  # type: ignore[misc]
        self: NetworkWithOps, layer_id: int, neuron_count: int, skip_initialization: bool = False
    ) -> None:
        """Add neurons; the function stays what it was."""
        self.edit(AddNeurons(str(layer_id), count=neuron_count, skip_initialization=skip_initialization))

    def reorder_neurons_by_trigger_rate(self: NetworkWithOps, layer_id: int) -> None:  # type: ignore[misc]
        """Put the neurons that trigger most often in training first; the function stays what it was."""
        self.edit(SortByStat(str(layer_id), statistic="trigger_rate", descending=True))


def _some(neurons: Iterable[int]) -> tuple[int, ...]:
    found = tuple(neurons)
    if not found:
        raise Invalid(
            "no neuron was named, so that nothing would be done; leave the neurons out to mean all of a layer"
        )
    return found
