from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import NotFound, StorageError
from graybox.store.chunks import LARGEST, ChunkStore
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def noise(size: int, seed: int = 0) -> bytes:
    """Nothing that gets smaller by packing."""
    return b"".join(hashlib.sha256(b"%d %d" % (seed, at)).digest() for at in range(-(-size // 32)))[:size]


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(tmp_path / "shared")


pieces = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 255), st.integers(1, 20_000)),
    st.builds(noise, st.integers(1, 20_000), st.integers(0, 3)),
)


@settings(max_examples=60)
@given(st.lists(pieces, max_size=8), st.lists(pieces, max_size=8))
def test_what_was_put_comes_back_and_is_kept_once(first: list[bytes], second: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ChunkStore(Path(folder) / "shared")
        names, added = store.put(first)
        assert names == [name_of(piece) for piece in first] and added == store.bytes_on_disk()
        assert store.put(map(memoryview, first)) == (names, 0)
        more, added = store.put(second)
        assert (added == 0) == (set(second) <= set(first))
        other = ChunkStore(store.folder)
        assert [other.get(name) for name in names + more] == first + second
        files = os.listdir(store.folder) if first + second else []
        assert {file.removesuffix(".z") for file in files} == {*names, *more} and len(files) == len({*names, *more})
        for file in files:
            content = (store.folder / file).read_bytes()
            assert name_of(zlib.decompress(content) if file.endswith(".z") else content) == file.removesuffix(".z")


def test_only_what_gets_smaller_is_packed(store: ChunkStore) -> None:
    _, added = store.put([noise(100_000)])
    assert added == 100_000
    _, added = store.put([bytes(LARGEST)])
    assert added < LARGEST / 100
    _, added = store.put([noise(50)])  # what is looked at to find out is all of it
    assert added == 50


@pytest.mark.parametrize("content", [noise(100_000), b"again and again " * 5_000])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty", "longer"])
def test_a_broken_piece_is_named_and_mended_by_whoever_shares_it_next(
    store: ChunkStore, content: bytes, damage: str
) -> None:
    (name,), _ = store.put([content])
    whole, _ = store.put([noise(300, seed=1)])
    (path,) = (path for path in store.folder.iterdir() if path.name.startswith(name))
    found = bytearray(path.read_bytes())
    if damage == "flip":
        found[len(found) // 2] ^= 1
    elif damage == "cut":
        del found[len(found) // 2 :]
    elif damage == "empty":
        found.clear()
    elif damage == "longer":
        found[:0] = b"x"
    path.unlink()
    if damage != "gone":
        path.write_bytes(found)

    for each in (store, ChunkStore(store.folder)):
        with pytest.raises(NotFound if damage == "gone" else StorageError, match=name):
            each.get(name)
        assert not each.is_whole(name) and each.holds(name) == (damage != "gone")
        assert each.is_whole(whole[0])
    again = ChunkStore(store.folder)
    assert again.put([content]) == ([name], path.stat().st_size) and path.stat().st_size
    assert store.get(name) == again.get(name) == content


def test_what_breaks_while_it_is_known_is_found_when_it_is_read(store: ChunkStore) -> None:
    (name,), _ = store.put([noise(500)])
    (store.folder / name).write_bytes(b"other")
    assert not store.is_whole(name)
    store.put([noise(500)])  # it is known to be broken now
    assert store.get(name) == noise(500)


def test_a_piece_that_was_packed_the_other_way_gives_way(store: ChunkStore) -> None:
    content = noise(2_000)
    name = name_of(content)
    store.put([b"x"])
    (store.folder / f"{name}.z").write_bytes(b"broken")
    store.put([content])
    assert not (store.folder / f"{name}.z").exists() and store.get(name) == content
    packed = bytes(2_000)
    (store.folder / name_of(packed)).write_bytes(b"broken")
    store.put([packed])
    assert not (store.folder / name_of(packed)).exists() and store.get(name_of(packed)) == packed


def test_collecting_takes_all_but_the_live_ones(store: ChunkStore) -> None:
    assert store.collect(set()) == 0
    contents = [noise(1_000, seed) for seed in range(4)] + [bytes(9_000)]
    names, added = store.put(contents)
    strange = store.folder / "notes.txt"
    strange.write_text("somebody's own")
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait(PATIENCE)
    leftover = store.folder / f".{names[0]}.{killed.pid}-00000000.tmp"
    leftover.write_bytes(b"half")
    assert store.collect({names[1], names[4]}) == 3_000
    assert not leftover.exists() and strange.exists()
    assert [store.holds(name) for name in names] == [False, True, False, False, True]
    assert store.bytes_on_disk() == added - 3_000
    with pytest.raises(NotFound, match=f"no shared content {names[0]}"):
        store.get(names[0])
    assert store.put(contents) == (names, 3_000)


def test_what_unpacks_to_more_than_a_piece_is_broken(store: ChunkStore) -> None:
    content = bytes(2 * LARGEST)
    store.put([b"x"])
    (store.folder / f"{name_of(content)}.z").write_bytes(zlib.compress(content))
    with pytest.raises(StorageError, match="is broken"):
        store.get(name_of(content))


@pytest.mark.parametrize("name", ["", "a", "../" + "0" * 61, "0" * 65, "G" * 64])
def test_what_names_no_piece_is_nowhere(store: ChunkStore, name: str) -> None:
    store.put([b"x"])
    assert not store.holds(name)
    with pytest.raises(NotFound, match="there is no shared content"):
        store.get(name)


FULL_DISK = """
import hashlib, resource, sys
from graybox.errors import StorageError
from graybox.store.chunks import ChunkStore
noise = [b"".join(hashlib.sha256(b"%d %d" % (n, at)).digest() for at in range(n)) for n in (50, 100, 60)]
store = ChunkStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
try:
    store.put(noise)
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.bytes_on_disk(), store.put(noise)[1])
"""


def test_a_full_disk_leaves_whole_pieces_only(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "shared")],
        cwd=REPOSITORY, check=True, timeout=PATIENCE, capture_output=True, text=True,
    )  # fmt: skip
    said, sizes = done.stdout.splitlines()
    assert said.startswith(f"cannot write {tmp_path}/shared/") and sizes == "1600 5120"
    assert sorted(path.stat().st_size for path in (tmp_path / "shared").iterdir()) == [1_600, 1_920, 3_200]


LOCKED = """
import os, sys
from graybox.errors import StorageError
from graybox.store.chunks import ChunkStore
if os.getuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
store = ChunkStore(sys.argv[1])
for act in (lambda: store.put([b"new"]), lambda: store.collect(set()), lambda: store.get(sys.argv[2])):
    try:
        print(act())
    except StorageError as error:
        print(error)
"""


def test_a_permission_that_was_lost_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:  # in a place that everybody may pass through
        os.chmod(folder, 0o755)
        store = ChunkStore(Path(folder) / "shared")
        (name,), _ = store.put([noise(100)])
        os.chmod(store.folder, 0o555)
        os.chmod(store.folder / name, 0o000)
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, str(store.folder), name],
            cwd=REPOSITORY, timeout=PATIENCE, capture_output=True, text=True,
        )  # fmt: skip
        os.chmod(store.folder, 0o755)
    new = name_of(b"new")
    assert done.stdout.splitlines() == [
        f"cannot write {folder}/shared/{new}: Permission denied",
        f"cannot remove {folder}/shared/{name}: Permission denied",
        f"cannot read {folder}/shared/{name}: Permission denied",
    ], done.stderr
