"""Neurons by what they are: statistics by name, and selections resolved on the network as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from graybox.errors import Invalid, NotFound, Refused
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.neuron_ops import Select
from graybox.neuron_table import matching


def _neurons_first(layer: NeuronLayer, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().movedim(layer.out_axis, 0)


def _rows(layer: NeuronLayer, tensor: torch.Tensor | None) -> np.ndarray:
    """The Euclidean norm of each neuron's weights or their gradient; 0 without one."""
    if tensor is None:
        return np.zeros(layer.neuron_count)
    rows = _neurons_first(layer, tensor).to(torch.float64).flatten(1)
    return np.asarray(rows.norm(dim=1).cpu().numpy())


STATISTICS: dict[str, Callable[[NeuronLayer], np.ndarray]] = {
    "trigger_rate": lambda layer: layer.train_dataset_tracker.rates().numpy(),
    "eval_trigger_rate": lambda layer: layer.eval_dataset_tracker.rates().numpy(),
    "age": lambda layer: layer.train_dataset_tracker.ages().numpy(),
    "eval_age": lambda layer: layer.eval_dataset_tracker.ages().numpy(),
    "learning_rate": lambda layer: layer.neuron_learning_rate.numpy(),
    "frozen": lambda layer: layer.frozen.numpy(),
    "weight_norm": lambda layer: _rows(layer, layer.weight),
    "gradient_norm": lambda layer: _rows(layer, layer.weight.grad),
    "mean_activation": lambda layer: layer.records.train.totals.means(recent=False).cpu().numpy(),
    "std_activation": lambda layer: layer.records.train.totals.deviations(recent=False).cpu().numpy(),
    "eval_mean_activation": lambda layer: layer.records.eval.totals.means(recent=False).cpu().numpy(),
    "eval_std_activation": lambda layer: layer.records.eval.totals.deviations(recent=False).cpu().numpy(),
    "relative_change": lambda layer: layer.records.relative_change(_neurons_first(layer, layer.weight)).cpu().numpy(),
    "index": lambda layer: np.arange(layer.neuron_count),
}
"""What a neuron can be sorted and selected by: a function of the layer, [neurons]; what is not known yet is NaN, and
comes last. Waits for the device."""


def statistic(layer: NeuronLayer, name: str) -> np.ndarray:
    """float64 [neurons]. Raises NotFound for an unknown name."""
    if name not in STATISTICS:
        raise NotFound(f"no statistic {name!r}; there are {', '.join(sorted(STATISTICS))}")
    return np.asarray(STATISTICS[name](layer), dtype=np.float64)


def sorted_order(layer: NeuronLayer, name: str, *, descending: bool) -> tuple[int, ...]:
    """The old index at each new place; ties, and what is not a number, keep their order (the latter at the end)."""
    values = statistic(layer, name)
    order = np.argsort(-values if descending else values, kind="stable")
    return tuple(int(i) for i in order)


@dataclass
class Viewed:
    """One neuron of a layer, as a selection's predicate sees it (`graybox.neuron_ops.NeuronView`)."""

    layer: str
    neuron: int
    _columns: _Columns = field(repr=False)

    def __getitem__(self, name: str) -> float:
        """A statistic (see STATISTICS). Raises NotFound for an unknown one."""
        return float(self._columns[name][self.neuron])

    @property
    def frozen(self) -> bool:
        return bool(self["frozen"])

    @property
    def age(self) -> int:
        """Samples it has seen in training since it began or was reinitialised."""
        return int(self["age"])

    @property
    def health(self) -> str:
        """Such as "good" or "dead", see `graybox.neuron_statistics`."""
        return self._columns.health()[self.neuron]


class _Columns:
    """Statistics of one layer, worked out when they are first asked for."""

    def __init__(self, network: NetworkWithOps, name: str, layer: NeuronLayer) -> None:
        self.network, self.name, self.layer = network, name, layer
        self._known: dict[str, np.ndarray] = {}
        self._health: list[str] = []

    def __len__(self) -> int:
        return self.layer.neuron_count

    @property
    def layer_id(self) -> int:
        return self.layer.get_module_id()

    @property
    def layer_type(self) -> str:
        return type(self.layer).__name__.removesuffix("WithNeuronOps")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._known:
            self._known[name] = statistic(self.layer, name)
        return self._known[name]

    def health(self) -> list[str]:
        if not self._health:
            self._health = health_names(self.network, self.name, self.layer)
        return self._health


HEALTHS = ("good", "young", "dead", "frozen", "overfit", "redundant")
"""By the numbers of `graybox.neuron_health`, from 1 on."""


def check_health(name: str) -> None:
    """Raises Invalid for a word that names no health."""
    if name and name not in HEALTHS:
        raise Invalid(f"no health {name!r}; there are {', '.join(HEALTHS)}")


def health_names(network: NetworkWithOps, name: str, layer: NeuronLayer) -> list[str]:
    """The health of each neuron of a layer, in words."""
    # Imported late: it looks at whole networks for whoever watches.
    from graybox.neuron_statistics import layer_statistics

    found = layer_statistics(network, name, layer, layer is network.output_layer(), fresh=True)
    return [HEALTHS[int(verdict) - 1] for verdict in found.health]


def resolve(network: NetworkWithOps, select: Select, *, structural: bool = False) -> dict[str, tuple[int, ...]]:
    """The neurons of each layer that a selection is about, in ascending order; layers without one are left out.

    structural: for an edit of structure, which leaves the output layer alone unless it is named. Raises NotFound for an
    unknown layer, neuron or statistic, Refused where no neuron is left.
    """
    check_health(select.health)
    found: list[tuple[str, _Columns, list[int]]] = []
    each = [_Columns(network, name, layer) for name, layer in _layers(network, select, structural=structural)]
    asked = matching(select.query, each, tuple(STATISTICS)) if select.query else None
    for number, columns in enumerate(each):
        if select.neurons:
            columns.layer.check_neurons(select.neurons)
        among = set(asked[number].tolist()) if asked is not None else range(len(columns))
        wanted = [neuron for neuron in (sorted(select.neurons) or range(len(columns))) if neuron in among]
        found.append((columns.name, columns, [neuron for neuron in wanted if _matches(columns, neuron, select)]))
    amount = _amount(select, sum(len(chosen) for _, _, chosen in found))
    if amount is not None:
        found = _extremes(found, select, amount)
    resolved = {name: tuple(chosen) for name, _, chosen in found if chosen}
    if not resolved:
        raise Refused(f"no neuron matches {_words(select)}; nothing was changed")
    return resolved


def _layers(network: NetworkWithOps, select: Select, *, structural: bool) -> Sequence[tuple[str, NeuronLayer]]:
    if select.layers:
        named = dict(network.find_layer(reference) for reference in select.layers)
        return list(named.items())
    output = network.output_layer() if structural else None
    return [(name, layer) for name, layer in network.named_layers() if layer is not output]


def _matches(columns: _Columns, neuron: int, select: Select) -> bool:
    if select.health and columns.health()[neuron] != select.health:
        return False
    return select.predicate is None or bool(select.predicate(Viewed(columns.name, neuron, columns)))


def _amount(select: Select, candidates: int) -> int | None:
    if select.share is not None:
        return max(1, math.floor(select.share * candidates)) if candidates else 0
    return select.lowest


def _extremes(
    found: Sequence[tuple[str, _Columns, list[int]]], select: Select, amount: int
) -> list[tuple[str, _Columns, list[int]]]:
    """So many of all candidates; where values are equal, those of earlier layers and lower numbers."""
    places = [(number, neuron) for number, (_, _, chosen) in enumerate(found) for neuron in chosen]
    values = np.array([found[number][1][select.statistic][neuron] for number, neuron in places])
    order = np.argsort(-values if select.highest else values, kind="stable")[:amount]
    taken = {places[int(i)] for i in order}
    return [
        (name, columns, [neuron for neuron in chosen if (number, neuron) in taken])
        for number, (name, columns, chosen) in enumerate(found)
    ]


def _words(select: Select) -> str:
    parts = [f"layers {', '.join(select.layers)}"] if select.layers else ["all layers"]
    parts += [f"health {select.health}"] if select.health else []
    parts += [f"the query {select.query}"] if select.query else []
    parts += ["the given condition"] if select.predicate is not None else []
    return " and ".join(parts)
