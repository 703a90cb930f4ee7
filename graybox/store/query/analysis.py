"""What a query tells about rows, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Cell: TypeAlias = str | int | float | bool | None

MAX_LINES = 100
"""Groups, tags or values that an answer lists; it says how many others there are."""

MAX_CLASSES = 50
"""Classes that a confusion matrix lists; the others are added up."""

_CELL_WIDTH = 40


@dataclass(frozen=True)
class Analysis:
    """A small table. None in a cell is null, or a number that no row has a value for; floats are finite.

    kind: "measures", "confusion" or "histogram". title: what was asked. rows: how many it is about.
    columns: the heads. lines: measures have one for each group, after the group's name; a histogram (from, to, count)
    with the last bin's end included, or (value, count), most frequent first; a confusion matrix the true class and then
    the counts of each guessed one. others, other_rows: groups, values or classes that are not listed, and the rows in
    them. notes: what was left out, in words.
    """

    kind: str
    title: str
    rows: int
    columns: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    others: int = 0
    other_rows: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as what JSON knows."""
        return {
            "kind": self.kind,
            "title": self.title,
            "rows": self.rows,
            "columns": list(self.columns),
            "lines": [list(line) for line in self.lines],
            "others": self.others,
            "other_rows": self.other_rows,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """To be read in a fixed-width font: numbers stand right, words left."""
        cells = [[_shown(cell) for cell in line] for line in (self.columns, *self.lines)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        right = [_is_numeric([line[index] for line in self.lines]) for index in range(len(self.columns))]
        table = [
            "  ".join(
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in cells
        ]
        head = f"{self.title}, of {self.rows} row{'' if self.rows == 1 else 's'}"
        return "\n".join([head, *table, *self.notes])

    def __str__(self) -> str:
        return self.text()


def _shown(cell: Cell) -> str:
    if cell is None:
        return "null"
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return f"{cell:.6g}"
    # One line for a cell, whatever stands in it.
    text = "".join(char if char.isprintable() else "·" for char in str(cell)[: _CELL_WIDTH + 1])
    return text if len(text) <= _CELL_WIDTH else text[: _CELL_WIDTH - 1] + "…"


def _is_numeric(cells: Sequence[Cell]) -> bool:
    return all(cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells)
