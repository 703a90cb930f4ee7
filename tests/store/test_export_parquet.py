from __future__ import annotations

import io
import json
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from graybox.store import export_parquet
from graybox.store.export_columns import ExportColumn, exported
from graybox.store.export_parquet import parquet_parts
from graybox.store.query import Column
from tests.store.exported_columns import columns, expected


@given(columns(), st.data(), st.sampled_from([1, 4, 65_536]))
def test_parquet_is_read_back_by_pandas(found: list[Column], data: st.DataObject, group_rows: int) -> None:
    count = len(found[0])
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)) if count else [], dtype=np.int64)
    made = [part for column in found for part in exported(column, rows)]
    wanted = {name: cells for column in found for name, cells in expected(column, rows).items()}
    with patch.object(export_parquet, "GROUP_ROWS", group_rows):
        content = b"".join(parquet_parts(made, {"graybox": "{}"}))
    frame = pd.read_parquet(io.BytesIO(content))
    assert list(frame) == list(wanted) and len(frame) == len(rows)
    for each in made:
        if each.texts is None and each.null is None:
            assert frame[each.name].dtype == each.values.dtype
            assert frame[each.name].to_numpy().tobytes() == each.values.tobytes()  # bit for bit
        cells = [None if pd.isna(cell) else cell for cell in frame[each.name].tolist()]
        assert cells == wanted[each.name], each.name


def test_null_is_null_and_the_run_is_named() -> None:
    loss = ExportColumn("loss", np.array([0.1, np.nan], np.float32), np.array([False, True]))
    file = pq.ParquetFile(io.BytesIO(b"".join(parquet_parts([loss], {"graybox": json.dumps({"run_id": "r"})}))))
    assert file.read().column("loss").null_count == 1
    assert json.loads(file.schema_arrow.metadata[b"graybox"]) == {"run_id": "r"}


def test_groups_of_rows_come_one_after_the_other() -> None:
    many = ExportColumn("id", np.arange(200_000))
    parts = list(parquet_parts([many], {}))
    assert len(parts) == 5 and max(map(len, parts)) < 1_000_000  # four groups and the end
    file = pq.ParquetFile(io.BytesIO(b"".join(parts)))
    assert file.num_row_groups == 4 and file.read().column("id").to_pylist() == list(range(200_000))
