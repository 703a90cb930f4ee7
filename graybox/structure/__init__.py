"""Which entries of a network's tensors belong to the same neuron, found by watching the network run."""

from graybox.structure.change import (
    Attribute,
    AxisChange,
    Change,
    Fill,
    Follower,
    Outgoing,
    Reading,
    Region,
    WeightedLayer,
)
from graybox.structure.structure import Structure

__all__ = [
    "Attribute",
    "AxisChange",
    "Change",
    "Fill",
    "Follower",
    "Outgoing",
    "Reading",
    "Region",
    "Structure",
    "WeightedLayer",
]
