"""The default experiment: real digits, written once, learnt well."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graybox.errors import StorageError
from graybox.examples.digits import SPLIT_SHARES, get_exp, write_digits
from graybox.launch import launch


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_they_are_written_once_whole_and_always_the_same(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "a" / "digits")
    found = contents(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_digits(folder) == folder
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert contents(write_digits(tmp_path / "b")) == found
    assert sorted(os.listdir(tmp_path / "a")) == ["digits"] and folder.stat().st_mode & 0o777 == 0o755
    assert len(found) == 1_797


def test_every_image_is_in_one_split_and_each_class_in_all(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "digits")
    names = {split: {path.name for path in (folder / split).rglob("*.png")} for split in SPLIT_SHARES}
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == 1_797
    for split, share in SPLIT_SHARES.items():
        assert len(names[split]) == pytest.approx(share * 1_797, rel=0.03)
        counts = [len(list((folder / split / str(label)).iterdir())) for label in range(10)]
        assert max(counts) - min(counts) <= 0.1 * max(counts) + 1


def test_an_image_is_the_scan_it_is_named_after(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for path in list(write_digits(tmp_path / "digits").rglob("*.png"))[::100]:
        row = int(path.stem)
        assert int(path.parent.name) == digits.target[row]
        np.testing.assert_allclose(np.asarray(Image.open(path)) / 255.0 * 16.0, digits.images[row], atol=0.04)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"cannot write the digits to {tmp_path}/file/digits"):
        write_digits(tmp_path / "file" / "digits")


def test_the_network_learns_them(tmp_path: Path) -> None:
    training = launch(get_exp(tmp_path), root_directory=tmp_path)
    try:
        trainer, session = training.trainer, training.trainer.session
        best = 0.0
        while session.step < 800 and best < 0.97:
            trainer.tick()
            result = session.last_evaluation
            best = max(best, (result.accuracy or 0.0) if result else 0.0)
        assert trainer.latest().error == ""
        assert best >= 0.97, f"{best:.3f} after {session.step} steps"
        assert trainer.latest().class_names == tuple("0123456789")
        assert training.images.image("val", "0", 64, 64)[1] == "image/jpeg"
    finally:
        training.close()
