"""Names of samples: kept in a file, found again, refused where they are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid, StorageError
from graybox.store.sample_keys import SampleKeys, checked_keys, keys_on_disk, keys_path, read_keys, write_keys
from graybox.store.samples import SampleStore

names = st.lists(
    st.text(st.characters(exclude_categories=("Cc",), exclude_characters="\u2028\u2029"), min_size=1, max_size=8),
    unique=True, max_size=8,
)  # fmt: skip


@given(names)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "keys.txt"
    write_keys(path, SampleKeys(keys))
    assert read_keys(path) == tuple(keys) == checked_keys(keys, "ids")


@given(names, names)
def test_samples_are_found_among_others(mine: list[str], others: list[str]) -> None:
    found = SampleKeys(mine).rows_in(SampleKeys(others))
    assert found.tolist() == [others.index(key) if key in others else -1 for key in mine]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["a", "b", "a"], "ids of X names samples 0 and 2 both 'a'"),
        (["a", ""], "sample 1 ''"),
        (["a", "b\nc"], "sample 1 'b"),
        (["x" * 1_001], "sample 0 'xxx"),
    ],
)
def test_what_is_no_name_is_refused_with_its_sample(keys: list[str], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        checked_keys(keys, "ids of X")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = keys_path(tmp_path, "train", "abc")
    assert path is not None and keys_on_disk(tmp_path, "train", "abc") is None
    write_keys(path, SampleKeys(["a", "b"]))
    found = keys_on_disk(tmp_path, "train", "abc")
    assert found is not None and found.of(1) == "b"
    path.write_bytes(path.read_bytes().replace(b"\nb", b"\nc"))
    with pytest.raises(StorageError, match=r"keys-train-abc\.txt is broken"):
        SampleKeys(path=path).texts()
    with pytest.raises(StorageError, match="cannot read"):
        SampleKeys(path=tmp_path / "none").texts()
    assert keys_path(tmp_path, "train", "../x") is None


def test_a_store_knows_the_names_of_its_samples(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 2, np.array([0, 1]), "f1", SampleKeys(["x", "y"]))
    store.add_split("val", 1, None, "f2")
    with pytest.raises(Invalid, match="3 samples of 'test' need as many names, not 1"):
        store.add_split("test", 3, None, "f3", SampleKeys(["x"]))
    store.close()
    for each in (SampleStore(tmp_path), SampleStore(tmp_path, read_only=True)):
        keys = each.splits["train"].keys
        assert keys is not None and keys.texts() == ("x", "y") and each.splits["val"].keys is None
        each.close()
