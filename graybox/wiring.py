"""Where each layer's neurons are counted: on the input of the layer that consumes them next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from graybox.dependencies import Dependencies
from graybox.modules_with_ops import NeuronLayer
from graybox.observation import InputColumns, Layout
from graybox.structure import Reading, Structure


def wire_declared(layers: Sequence[NeuronLayer], dependencies: Dependencies) -> NeuronLayer | None:
    """Tell each layer whose neurons it reads off its input, as declared. Answers the output layer: the last one that
    nothing consumes; None without layers."""
    readers: dict[int, list[NeuronLayer]] = {id(layer): [] for layer in layers}
    output = None
    for layer in layers:
        consumers = [c for c in dependencies.consumers(layer) if id(c) in readers]
        # Several may consume it (a residual block's branches); they see the same tensor, one counts.
        countable = bool(consumers) and dependencies.positions(layer, consumers[0]) is not None
        layer.triggers_counted_by = "consumer" if countable else ""
        if countable:
            readers[id(consumers[0])].append(layer)
        elif not consumers:
            output = layer
    for layer in layers:
        # A consumer takes features last where it is a linear layer; so it does what was flattened into them.
        layer.readings = tuple(
            ((producer,), Layout(layer.features_last, producer.features_last)) for producer in readers[id(layer)]
        )
    return output


def wire_traced(named: Iterable[tuple[str, NeuronLayer]], structure: Structure) -> NeuronLayer | None:
    """The same, as the structure tells. The output layer is the last whose neurons are the network's output."""
    layers = dict(named)
    found: dict[str, list[tuple[Reading, list[NeuronLayer]]]] = {name: [] for name in layers}
    for name, layer in layers.items():
        reading = structure.reading(name) if name in structure.layers else None
        countable = reading is not None and reading.reader in layers
        counted_by = "consumer" if countable else ""
        if layer.triggers_counted_by != counted_by:  # setting what a module has is slow, and most have what they had
            layer.triggers_counted_by = counted_by
        if reading is None or not countable:
            continue
        for other, producers in found[reading.reader]:
            # Summed before they are consumed, several layers' neurons are one: measured once.
            if other.axis == reading.axis and np.array_equal(other.columns, reading.columns):
                producers.append(layer)
                break
        else:
            found[reading.reader].append((reading, [layer]))
    for name, layer in layers.items():
        readings = tuple((tuple(producers), _layout_of(reading)) for reading, producers in found[name])
        if not _same(layer.readings, readings):
            layer.readings = readings
    outputs = [
        layers[name]
        for name in structure.layers
        if name in layers and structure.is_output(name) and not layers[name].triggers_counted_by
    ]
    return outputs[-1] if outputs else None


def _same(one: Sequence[tuple[object, object]], other: Sequence[tuple[object, object]]) -> bool:
    """Of the same layers, in the very same layouts."""
    return len(one) == len(other) and all(a[0] == b[0] and a[1] is b[1] for a, b in zip(one, other, strict=True))


_LAYOUTS: WeakKeyDictionary[Reading, Layout] = WeakKeyDictionary()


def _layout_of(reading: Reading) -> Layout:
    if reading not in _LAYOUTS:
        last = reading.axis == -1
        _LAYOUTS[reading] = Layout(last, last, InputColumns(reading.columns))
    return _LAYOUTS[reading]
