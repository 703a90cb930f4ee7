"""Who holds atoms of which group of axes, so that an edit looks only at those that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from graybox.structure.classes import Classes, unique
from graybox.structure.layout import Array
from graybox.structure.rules import Contraction, Norm

Axis = tuple[str, int]


class Holder(Protocol):
    """Something that was seen to happen to atoms."""

    def arrays(self) -> list[Array]:
        """All atoms that it holds."""

    def follow(self, follow: Callable[[Array], Array]) -> None:
        """Exchange them."""


def find_holders(
    classes: Classes,
    own: Mapping[Axis, Array],
    groups: Sequence[Sequence[Axis]],
    contractions: Sequence[Contraction],
    norms: Sequence[Norm],
) -> list[list[Holder]]:
    """For each group, what holds atoms of its classes besides the axes of tensors. It stays so through every edit: new
    classes are copies, in the group of their models."""
    group_of = np.full(int(classes.of.max()) + 1 if classes.of.size else 0, -1, dtype=np.int64)
    for number, group in enumerate(groups):
        for axis in group:
            group_of[classes.of[own[axis]]] = number
    holders: list[list[Holder]] = [[] for _ in groups]
    everyone: list[Holder] = [*contractions, *norms, *classes.mixers]
    for holder in everyone:
        held = unique(group_of[classes.of[atoms]] for atoms in holder.arrays())
        for number in held[held >= 0]:
            holders[int(number)].append(holder)
    return holders
