"""Columns as a Parquet file, written a group of rows at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graybox.store.export_columns import ExportColumn

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 65_536


def parquet_parts(columns: Sequence[ExportColumn], about: Mapping[str, str]) -> Iterator[bytes]:
    """The file, piece by piece. about: kept in the file's metadata. Null is null, also where a number is NaN."""
    # Loading it takes longer and more memory than most backends that never write a Parquet file should pay.
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(column.name, _type(column)) for column in columns], metadata=dict(about))
    sink = _Pieces()
    with pq.ParquetWriter(sink, schema) as writer:
        for start in range(0, len(columns[0]), GROUP_ROWS):
            arrays = [_array(column.part(start, start + GROUP_ROWS)) for column in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.taken()
    yield sink.taken()


def _type(column: ExportColumn) -> pa.DataType:
    import pyarrow as pa

    return pa.string() if column.texts is not None else pa.from_numpy_dtype(column.values.dtype)


def _array(part: ExportColumn) -> pa.Array:
    import pyarrow as pa

    if part.texts is None:
        return pa.array(part.values, mask=part.null)
    codes = pa.array(part.values.astype(np.int32), mask=part.null)
    return pa.DictionaryArray.from_arrays(codes, pa.array(part.texts, pa.string())).cast(pa.string())


class _Pieces(io.RawIOBase):
    """A file to write into, from which what was written is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def taken(self) -> bytes:
        """What was written since it was asked last."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
