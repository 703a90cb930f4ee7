"""Classes of atoms: what can only go, come or move together; and how an axis looks after some did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from graybox.structure.layout import Array, Atoms


@dataclass
class Mixer:
    """Entries that influence each other beyond a sum, in groups: an edit is exact where whole groups go.

    members: atoms of each group. tensor: of the normalisation, "" for another operator.
    """

    members: list[Array]
    why: str
    tensor: str

    def arrays(self) -> list[Array]:
        """All atoms that it holds."""
        return self.members

    def follow(self, follow: Callable[[Array], Array]) -> None:
        """Exchange them."""
        self.members = [left for left in (follow(members) for members in self.members) if left.size]


class Classes:
    """The class of every atom, and why a class cannot change."""

    def __init__(self, atoms: Atoms) -> None:
        self.of = _components(atoms.count, atoms.pairs)
        for _ in range(16):  # a grid's own union can break another's
            more = [_columns(grid) for grid in atoms.grids if not _along_one_axis(self.of[grid])]
            if not more:
                break
            atoms.pairs += more
            self.of = _components(atoms.count, atoms.pairs)
        self._count = int(self.of.max()) + 1 if self.of.size else 0
        self._fixed = np.full(self._count, -1, dtype=np.int64)
        self._reasons: list[str] = []
        for entries, reason in atoms.fixed:
            if reason not in self._reasons:
                self._reasons.append(reason)
            classes = self.of[entries]
            classes = classes[self._fixed[classes] < 0]
            self._fixed[classes] = self._reasons.index(reason)
        self.absorbed = np.zeros(atoms.count, dtype=bool)
        for entries in atoms.absorbed:
            self.absorbed[entries] = True
        self.summed = np.zeros(atoms.count, dtype=bool)
        for entries, _ in atoms.summed:
            self.summed[entries] = True
        self.mixers = [Mixer(list(groups), why, tensor) for groups, why, tensor in atoms.mixed]

    def why_fixed(self, classes: Array) -> str:
        """The first reason why one of these cannot change; "" when all can."""
        found = self._fixed[classes]
        found = found[found >= 0]
        return self._reasons[int(found[0])] if found.size else ""

    def flags(self, classes: Array) -> Array:
        """bool [number of classes]: which are among these."""
        flags = np.zeros(self._count, dtype=bool)
        flags[classes] = True
        return flags

    def part_copies(self, first: int, copies: int) -> None:
        """A whole group that was copied has not grown: its copies, atoms from `first` on, are groups of their own."""
        for mixer in self.mixers:
            if len(mixer.members) > 1:
                mixer.members = [part for row in mixer.members for part in _parted(row, first, copies)]

    def clone(self, atoms: Array, classes: Array, copies: int) -> int:
        """Make `copies` of some classes (ascending) and their atoms (ascending). Answers the first new atom; the k-th
        copy (from 0) of the i-th is first + k * number + i."""
        first_atom, first_class = self.of.size, self._count
        own = np.searchsorted(classes, self.of[atoms])
        new = [first_class + k * classes.size + own for k in range(copies)]
        self.of = np.concatenate([self.of, *new])
        self.summed = np.concatenate([self.summed, *[self.summed[atoms]] * copies])
        self.absorbed = np.concatenate([self.absorbed, *[self.absorbed[atoms]] * copies])
        self._count += copies * classes.size
        self._fixed = np.concatenate([self._fixed, np.full(copies * classes.size, -1, dtype=np.int64)])
        return first_atom


def _components(count: int, pairs: Sequence[tuple[Array, Array]]) -> Array:
    if not pairs:
        return np.arange(count, dtype=np.int64)
    left = np.concatenate([a for a, _ in pairs])
    right = np.concatenate([b for _, b in pairs])
    graph = coo_matrix((np.ones(left.size, dtype=np.int8), (left, right)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, dtype=np.int64)


def _parted(row: Array, first: int, copies: int) -> list[Array]:
    size = row.size // (copies + 1)
    if size * (copies + 1) != row.size or (row[:size] >= first).any() or (row[size:] < first).any():
        return [row]
    return np.split(row, copies + 1)


def _along_one_axis(labels: Array) -> bool:
    """Whether each class is made of whole hyperplanes along one of the axes."""
    for axis in range(labels.ndim):
        first = labels[tuple(slice(None) if a == axis else slice(0, 1) for a in range(labels.ndim))]
        if (labels == first).all():
            return True
    return False


def _columns(grid: Array) -> tuple[Array, Array]:
    """The union that leaves the last axis: what a channel shuffle needs, whose number of groups the code fixes."""
    first = grid[(*(slice(0, 1),) * (grid.ndim - 1), slice(None))]
    a, b = np.broadcast_arrays(grid, first)
    return a.reshape(-1), b.reshape(-1)


# -- how an axis looks afterwards ----------------------------------------------------------------------


def with_copies(hit: Array, copies: int) -> tuple[Array, Array]:
    """(like, copy) when some entries (bool [size]) get `copies` copies: every run of them is followed by its copies.

    like: the old index of each new entry; copy: 0 for the old entries, k for those of the k-th copy.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hit, [False]]).astype(np.int8)))
    like, copy, done = [], [], 0
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        run = np.arange(start, stop)
        like += [np.arange(done, stop), *[run] * copies]
        copy += [np.zeros(stop - done, dtype=np.int64), *[np.full(run.size, k + 1) for k in range(copies)]]
        done = stop
    like.append(np.arange(done, hit.size))
    copy.append(np.zeros(hit.size - done, dtype=np.int64))
    return np.concatenate(like), np.concatenate(copy)


def moved(labels: Array, classes: Array, targets: Array) -> Array | None:
    """The old index at each place when the places of class classes[i] are taken by class targets[i]; None where the
    two have different numbers of places."""
    source = np.arange(labels.size)
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    for place, taker in zip(classes, targets, strict=True):
        to = order[np.searchsorted(ranked, place) : np.searchsorted(ranked, place, "right")]
        come = order[np.searchsorted(ranked, taker) : np.searchsorted(ranked, taker, "right")]
        if to.size != come.size:
            return None
        source[to] = come
    return source


def unique(arrays: Iterable[Array]) -> Array:
    """All different values, ascending."""
    found = list(arrays)
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
