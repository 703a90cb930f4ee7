"""What an edit of the structure does to the tensors of a network, as values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


class Fill(enum.Enum):
    """What the entries of a neuron that is added start with."""

    INIT = "own initialisation"
    ZERO = "zero"
    """Connections to what consumes the neuron: the function stays what it was."""
    ONE = "one"
    """A normalisation's gain and running variance."""
    NOUGHT = "nought"
    """A normalisation's shift and running mean."""
    LIKE = "like its neighbour"


@dataclass(frozen=True)
class AxisChange:
    """One axis of one tensor gets new entries in the place of the old ones.

    source: int64 [new size], the old index of each entry, -1 for a new one. like: int64 [new size], for a new entry
    the old index of the one it is modelled on, elsewhere as source. size: how many entries there were before.
    """

    tensor: str
    axis: int
    source: np.ndarray
    like: np.ndarray
    fill: Fill
    size: int

    @property
    def removed(self) -> np.ndarray:
        """Old indices that are gone; int64, ascending."""
        return np.setdiff1d(np.arange(self.size), self.source)

    @property
    def added(self) -> np.ndarray:
        """New indices of entries that are new; int64, ascending."""
        return np.flatnonzero(self.source < 0)


@dataclass(frozen=True)
class Attribute:
    """A number that a module keeps beside its tensors, such as `out_channels`."""

    module: str
    name: str
    old: int | tuple[int, ...]
    new: int | tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """An edit of the structure: kind "remove", "add" or "reorder".

    axes: in the order in which they are to be made; a tensor may occur with several axes.
    neurons: by layer. remove: the old indices that go. add: the new indices, in the new numbering. reorder: int64
        [neurons], the old index at each new place.
    inexact: why the function changes by more than what was removed, one reason each; empty when it does not.
    parameters, multiply_adds: of the whole network, before and after; multiply-adds of layers with weights for one
        sample of the example input.
    """

    kind: str
    layer: str
    axes: tuple[AxisChange, ...]
    neurons: Mapping[str, np.ndarray]
    attributes: tuple[Attribute, ...] = ()
    inexact: tuple[str, ...] = ()
    parameters_before: int = 0
    parameters_after: int = 0
    multiply_adds_before: int = 0
    multiply_adds_after: int = 0
    # For the structure's own bookkeeping: the classes of entries that go, are copied or move (and where to), and how
    # many copies come.
    classes: tuple[int, ...] = field(default=())
    targets: tuple[int, ...] = field(default=())
    copies: int = 0


@dataclass(frozen=True)
class WeightedLayer:
    """A module whose weight has neurons: a convolution, a linear layer, an embedding, or any other that multiplies.

    weight, bias: names of tensors; out_axis, in_axis: the weight's axes of neurons and of what they consume (-1: it
    consumes no neurons, as an embedding).
    """

    name: str
    weight: str
    out_axis: int
    in_axis: int
    bias: str | None
    groups: int = 1


@dataclass(frozen=True)
class Follower:
    """A tensor of a normalisation that carries exactly one layer's neurons along `axis`."""

    tensor: str
    axis: int
    fill: Fill


@dataclass(frozen=True)
class Region:
    """Entries of a tensor: the product of the indices along some axes, everything along the others."""

    tensor: str
    where: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Outgoing:
    """The connections by which neurons are consumed. joined: layers whose neurons are summed with them first."""

    regions: tuple[Region, ...]
    joined: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """Where a layer's neurons are seen as the next weighted layer sees them: on the input of module `reader`, along
    its axis `axis` (-1 or 1), in the columns int64 [neurons, positions]."""

    reader: str
    axis: int
    columns: np.ndarray
