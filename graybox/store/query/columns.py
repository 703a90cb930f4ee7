"""What queries are asked of: columns of one kind each, and a table that has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid


class Kind(StrEnum):
    """What a column holds."""

    NUMBER = "number"
    BOOL = "bool"
    TEXT = "text"
    CLASS = "class"


_DTYPES = {
    Kind.NUMBER: ("iuf", "integers or floating-point numbers"),
    Kind.BOOL: ("b", "bool"),
    Kind.TEXT: ("OiuU", "str objects, or integers that index its texts"),
    Kind.CLASS: ("iu", "integers, the numbers of classes"),
}


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table. values: shape [rows].

    NUMBER: integers or floats, NaN is null. BOOL: bool. CLASS: the numbers of classes, below 0 is null; names: of class
    0, 1, ..., empty where they have none. TEXT: str objects (None is null), or integers that index `texts`, below 0 is
    null. null: bool [rows], rows that have no value whatever stands in `values`. The arrays are not copied.

    Raises Invalid for arrays of another type or shape.
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    description: str = ""
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    null: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        allowed, wanted = _DTYPES[self.kind]
        if self.kind is Kind.TEXT:
            allowed = "OU" if self.texts is None else "iu"
        if self.values.ndim != 1 or (self.values.dtype.kind not in allowed and self.values.size):
            raise Invalid(
                f"values of column {self.name!r} ({self.kind.value}) have shape [rows] and are {wanted}, not "
                f"{self.values.dtype} {list(self.values.shape)}"
            )
        if self.null is not None and (self.null.shape != self.values.shape or self.null.dtype != np.bool_):
            raise Invalid(
                f"null of column {self.name!r} is bool {list(self.values.shape)}, not {self.null.dtype} "
                f"{list(self.null.shape)}"
            )

    def __len__(self) -> int:
        return len(self.values)


class Table(Protocol):
    """Rows 0 to len - 1, with columns and tags by name. A column is asked for only if a query uses it, and then once,
    so that it may be computed at that moment; names() and tags() are cheap.

    column and tag raise NotFound for an unknown name; column may know others than names() lists, such as an alias.
    """

    def __len__(self) -> int: ...

    def names(self) -> Sequence[str]: ...

    def column(self, name: str) -> Column: ...

    def tags(self) -> Sequence[str]: ...

    def tag(self, name: str) -> NDArray[np.bool_]:
        """bool [rows]: which rows have the tag."""
        ...
