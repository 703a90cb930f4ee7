"""Whether a network runs after a change as the trace of before says: a number in its code can contradict it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from graybox.errors import Invalid
from graybox.structure.change import Attribute
from graybox.structure.classes import Classes
from graybox.structure.layout import Array
from graybox.structure.tracer import Trace, trace_network

CALCULATES = "the network's code calculates with how many they are"


@dataclass(frozen=True)
class Verdict:
    """refusal: why it cannot be done; inexact: why the function would change by more. "" where there is no reason."""

    refusal: str
    inexact: str = ""


def verdict(
    network: nn.Module,
    example: Any,
    shapes: dict[str, tuple[int, ...]],
    attributes: Sequence[Attribute],
    expected: dict[tuple[str, int], Array],
    numbers: Sequence[tuple[str, tuple[float, ...]]],
    cuts: Sequence[tuple[int, ...]],
) -> Verdict:
    """Whether the network with tensors of these shapes runs, ties the entries of the axes together as expected (a class
    for each entry), and calculates with the same numbers. cuts: shapes that the code gives tensors now. Nothing
    changes."""
    with _set(network, attributes):
        try:
            trace = trace_network(network, example, shapes)
        except Invalid as error:
            return Verdict(
                f"the network would not run any more, probably because of a number in its code ({error.__cause__})"
            )
    inexact = "" if trace.tracing.numbers == list(numbers) else CALCULATES
    found = Classes(trace.tracing.atoms).of
    atoms = {(name, block.dims[0]): block.atoms for name, layout in trace.own.items() for block in layout.blocks}
    axes = [axis for axis in expected if axis in atoms and expected[axis].size == atoms[axis].size]
    if not axes:
        return Verdict("", inexact)
    before = np.concatenate([expected[axis] for axis in axes])
    after = np.concatenate([found[atoms[axis]] for axis in axes])
    pairs = len(np.unique(np.stack([before, after]), axis=1)[0])
    # Where one entry, group or head is left nothing holds it together any more: what went along may fall apart.
    one_left = (
        any(labels.size == 1 for labels in expected.values())
        or any(1 in sizes for sizes in _changed_sizes(trace, cuts))
        or any(attribute.name in ("groups", "num_groups") and attribute.new == 1 for attribute in attributes)
    )
    fallen_apart = one_left and pairs == len(np.unique(after))
    if fallen_apart or pairs == len(np.unique(before)) == len(np.unique(after)):
        return Verdict("", inexact)
    return Verdict("the network's code would connect the others differently then (it cuts them at a fixed place)")


def _changed_sizes(trace: Trace, cuts: Sequence[tuple[int, ...]]) -> list[Any]:
    """What is new about the shapes: the sizes that were others before."""
    found = trace.tracing.atoms.cuts
    if len(found) != len(cuts):
        return []
    sizes = [[a for a, b in zip(new, old, strict=True) if a != b] for new, old in zip(found, cuts, strict=True)
             if len(new) == len(old)]  # fmt: skip
    return [tuple(changed) for changed in sizes if changed]


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
