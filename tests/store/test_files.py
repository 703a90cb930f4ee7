from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from graybox.errors import StorageError
from graybox.store.files import make_folder, remove_leftovers, sha256_of, write_atomically
from tests.patience import PATIENCE


def test_bytes_and_writers_replace_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"one, and longer than what follows")

    def write(file: BinaryIO) -> None:
        file.write(b"tw_")
        file.seek(2)
        file.write(b"o")

    write_atomically(path, write)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_mode_is_exact_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_atomically(tmp_path / "open", b"", mode=0o644)
        os.umask(0)
        write_atomically(tmp_path / "secret", b"", mode=0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the n")
        raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_errors_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*missing/a\.bin: No such file"):
        write_atomically(tmp_path / "missing" / "a.bin", b"")
    with pytest.raises(StorageError, match="nothing-here"):
        sha256_of(tmp_path / "nothing-here")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/folder"):
        make_folder(tmp_path / "file" / "folder")


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from graybox.store.files import write_atomically\n"
        "write_atomically(sys.argv[1] + '/a.bin', lambda file: os.kill(os.getpid(), signal.SIGKILL))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2], timeout=PATIENCE
    )
    assert killed.returncode == -9
    (tmp_path / f".b.bin.{os.getpid()}-0123abcd.tmp").write_bytes(b"being written")
    (tmp_path / ".c.tmp").write_bytes(b"not ours")
    assert len(os.listdir(tmp_path)) == 3
    assert remove_leftovers(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [f".b.bin.{os.getpid()}-0123abcd.tmp", ".c.tmp"]
    assert remove_leftovers(tmp_path / "missing") == 0
