"""A table made of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound
from graybox.store.query.columns import Column, Kind
from graybox.store.query.texts import encoded, is_missing

Source: TypeAlias = Column | ArrayLike
Lazy: TypeAlias = Callable[[], Source]


class ColumnTable:
    """A Table of arrays and Columns by name, and of tags by name.

    columns: an array's kind is what it holds: numbers, bool, or texts; where None stands among objects, the row has no
    value. A class column comes as a Column. A function without arguments is called when a query first uses its column,
    and what it answers is kept. tags: bool [rows] each. aliases: further names of columns, which names() does not list.
    length: needed only where all columns are functions.

    Raises Invalid for columns of different lengths and for arrays that hold something else.
    """

    def __init__(
        self,
        columns: Mapping[str, Source | Lazy],
        tags: Mapping[str, ArrayLike] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self._columns: dict[str, Column] = {}
        self._lazy: dict[str, Lazy] = {}
        self._names = tuple(columns)
        self._aliases = dict(aliases or {})
        self._length = length
        for name, source in columns.items():
            if callable(source):
                self._lazy[name] = source
            else:
                self._columns[name] = self._checked(as_column(name, source))
        self._tags = {name: self._checked_tag(name, np.asarray(mask)) for name, mask in (tags or {}).items()}
        if self._length is None and self._lazy:
            raise Invalid("a table of functions alone needs a length")
        for alias, name in self._aliases.items():
            if name not in columns:
                raise Invalid(f"alias {alias!r} is for column {name!r}, which the table does not have")

    def __len__(self) -> int:
        return self._length or 0

    def names(self) -> Sequence[str]:
        return self._names

    def column(self, name: str) -> Column:
        known = name if name in self._names else self._aliases.get(name, name)
        if known not in self._columns:
            if known not in self._lazy:
                raise NotFound(f"there is no column {name!r}; there are {', '.join(self._names) or 'none'}")
            self._columns[known] = self._checked(as_column(known, self._lazy[known]()))
        return self._columns[known]

    def tags(self) -> Sequence[str]:
        return tuple(self._tags)

    def tag(self, name: str) -> NDArray[np.bool_]:
        if name not in self._tags:
            raise NotFound(f"there is no tag {name!r}; there are {', '.join(self._tags) or 'none'}")
        return self._tags[name]

    def _checked(self, column: Column) -> Column:
        self._check_length(f"column {column.name!r}", len(column))
        return column

    def _checked_tag(self, name: str, mask: NDArray[Any]) -> NDArray[np.bool_]:
        if mask.ndim != 1 or (mask.dtype != np.bool_ and mask.size):
            raise Invalid(f"tag {name!r} is bool of shape [rows], not {mask.dtype} {list(mask.shape)}")
        self._check_length(f"tag {name!r}", len(mask))
        return mask.astype(bool, copy=False)

    def _check_length(self, what: str, found: int) -> None:
        if self._length is None:
            self._length = found
        if found != self._length:
            raise Invalid(f"{what} has {found} rows, the table has {self._length}")


def as_column(name: str, source: Source) -> Column:
    """A Column as it is, under this name; an array as a Column of the kind that it holds. Raises Invalid where it holds
    none of them."""
    if isinstance(source, Column):
        return source if source.name == name else replace(source, name=name)
    values = np.asarray(source)
    if values.dtype.kind == "U" and not isinstance(source, np.ndarray):
        values = np.asarray(source, dtype=object)  # NumPy would have made texts of numbers among texts
    if values.dtype.kind in "iuf":
        return Column(name, Kind.NUMBER, values)
    if values.dtype.kind == "b":
        return Column(name, Kind.BOOL, values)
    if values.dtype.kind == "U" or (values.dtype.kind == "O" and values.ndim == 1):
        return _of_objects(name, values)
    raise Invalid(
        f"column {name!r} has shape [rows] and holds numbers, bool or texts, not {values.dtype} {list(values.shape)}"
    )


def _of_objects(name: str, values: NDArray[Any]) -> Column:
    """Texts, numbers or bool with None among them."""
    listed = values.tolist()
    types = {type(each) for each in listed if not is_missing(each)}
    if types == {bool}:
        null = np.fromiter(map(is_missing, listed), bool, len(listed))
        return Column(name, Kind.BOOL, np.fromiter((each is True for each in listed), bool, len(listed)), null=null)
    if types and types <= {int, float}:
        numbers = (np.nan if is_missing(each) else each for each in listed)
        return Column(name, Kind.NUMBER, np.fromiter(numbers, np.float64, len(listed)))
    codes, texts = encoded(name, listed)
    return Column(name, Kind.TEXT, codes, texts=texts)
