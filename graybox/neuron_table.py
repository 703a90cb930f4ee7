"""The neurons of a network as a table that queries are asked of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from graybox.errors import Invalid
from graybox.store.query import Column, ColumnTable, Kind, parse, rows


class LayerColumns(Protocol):
    """Statistics of one layer's neurons, worked out when they are first asked for."""

    name: str

    @property
    def layer_id(self) -> int: ...

    @property
    def layer_type(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, name: str) -> np.ndarray: ...

    def health(self) -> list[str]: ...


def matching(query: str, layers: Sequence[LayerColumns], statistics: Sequence[str]) -> list[np.ndarray]:
    """Which neurons of each layer a query finds, ascending int64 each.

    A neuron has the columns layer, layer_type, layer_id, neuron, health and its statistics; what is not known yet is
    null. Raises QueryError for what is no query of these, Invalid for one that shows something instead of finding it.
    """
    parsed = parse(query)
    if parsed.show is not None or parsed.command:
        raise Invalid("a query selects neurons by a condition, sample, sortby and limit; show and @ commands find none")
    counts = [len(layer) for layer in layers]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = rows(parsed, _table(layers, counts, statistics))
    where = np.searchsorted(starts, found, side="right") - 1
    return [np.sort(found[where == number] - starts[number]) for number in range(len(layers))]


def _table(layers: Sequence[LayerColumns], counts: Sequence[int], statistics: Sequence[str]) -> ColumnTable:
    def texts(name: str, values: Sequence[str]) -> Column:
        return Column(name, Kind.TEXT, np.repeat(np.arange(len(layers)), counts), texts=tuple(values))

    def together(name: str) -> Callable[[], np.ndarray]:
        return lambda: np.concatenate([layer[name] for layer in layers]) if layers else np.zeros(0)

    health = lambda: np.array([word for layer in layers for word in layer.health()], dtype=object)  # noqa: E731
    return ColumnTable(
        {
            "layer": texts("layer", [layer.name for layer in layers]),
            "layer_type": texts("layer_type", [layer.layer_type for layer in layers]),
            "layer_id": np.repeat(np.array([layer.layer_id for layer in layers], dtype=np.int64), counts),
            "neuron": together("index"),
            "health": health,
            "frozen": lambda: together("frozen")().astype(bool),
            **{name: together(name) for name in statistics if name not in ("index", "frozen")},
        },
        length=int(sum(counts)),
    )
