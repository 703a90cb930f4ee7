from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from graybox.errors import Invalid, NotFound, StorageError
from graybox.store.blobs import BlobStore

arrays = npst.arrays(
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.uint8]),
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, arrays, max_size=4))
def test_arrays_come_back_with_their_bits(content: dict[str, np.ndarray[Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        digest = BlobStore(folder).put(content)
        found = BlobStore(folder).get(digest)
    assert found.keys() == content.keys()
    for name, array in content.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_equal_arrays_have_one_blob_whatever_their_order(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    a, b = np.arange(3), np.eye(2, dtype=np.float32)
    digest = store.put({"file": a, "b/weight": b})
    assert store.put({"b/weight": b.copy(), "file": a.copy()}) == digest
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    assert store.put({"file": a, "b/weight": np.asfortranarray(b.astype(np.float64))}) != digest


def test_a_broken_blob_is_named_and_mended_by_putting_it_again(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put({"a": np.arange(100)})
    path = tmp_path / f"{digest}.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=f"{digest}.npz is broken"):
        store.get(digest)
    assert store.put({"a": np.arange(100)}) == digest
    assert store.get(digest)["a"].tolist() == list(range(100))


def test_unknown_and_unfit(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(NotFound, match="no blob 0000"):
        store.get("0" * 64)
    with pytest.raises(NotFound, match="64 hexadecimal"):
        store.get("../../etc/passwd")
    with pytest.raises(Invalid, match="'a' holds Python objects"):
        store.put({"a": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []
