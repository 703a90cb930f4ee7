"""Whether a network runs after a change as the trace of before says: a number in its code can contradict it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from graybox.errors import Invalid
from graybox.structure.change import Attribute
from graybox.structure.classes import Classes
from graybox.structure.layout import Array
from graybox.structure.tracer import trace_network


def verdict(
    network: nn.Module,
    example: Any,
    shapes: dict[str, tuple[int, ...]],
    attributes: Sequence[Attribute],
    expected: dict[tuple[str, int], Array],
) -> str:
    """"" when the network with tensors of these shapes runs, and ties the entries of the axes together as expected
    (a class for each entry); else the reason for people. Nothing changes."""
    with _set(network, attributes):
        try:
            trace = trace_network(network, example, shapes)
        except Invalid as error:
            return f"the network would not run any more, probably because of a number in its code ({error.__cause__})"
    found = Classes(trace.tracing.atoms).of
    atoms = {(name, block.dims[0]): block.atoms for name, layout in trace.own.items() for block in layout.blocks}
    axes = [axis for axis in expected if axis in atoms and expected[axis].size == atoms[axis].size]
    if not axes:
        return ""
    before = np.concatenate([expected[axis] for axis in axes])
    after = np.concatenate([found[atoms[axis]] for axis in axes])
    pairs = len(np.unique(np.stack([before, after]), axis=1)[0])
    if pairs == len(np.unique(before)) == len(np.unique(after)):
        return ""
    return "the network's code would connect the others differently then (it cuts them at a fixed place)"


@contextmanager
def _set(network: nn.Module, attributes: Sequence[Attribute]) -> Iterator[None]:
    modules = dict(network.named_modules())
    for attribute in attributes:
        setattr(modules[attribute.module], attribute.name, attribute.new)
    try:
        yield
    finally:
        for attribute in attributes:
            setattr(modules[attribute.module], attribute.name, attribute.old)
