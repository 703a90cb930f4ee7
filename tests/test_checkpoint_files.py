"""Checkpoint files: what is written is what is read, equal content is kept once, and damage is named."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.checkpoint import CheckpointKeeper, capture, restore_all
from graybox.checkpoint_files import FORMAT_VERSION, OF_ITS_OWN, TOGETHER, Written, read_payload, write_payload
from graybox.errors import StorageError
from graybox.state_copy import bytes_of, is_dense
from graybox.store.checkpoints import CheckpointCatalogue
from graybox.store.chunks import LARGEST, ChunkStore
from tests import checkpoint_fixtures
from tests.small_experiments import Opened, toy_experiment, whole_state
from tests.small_networks import differences
from tests.test_state_copy import tensors


def same(one: Any, other: Any) -> bool:
    """Of the same types all through, tensors of the same bits and layout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.layout is not torch.strided:
            return torch.equal(one.to_dense(), other.to_dense())
        alike = (one.shape, one.dtype) == (other.shape, other.dtype)
        return alike and bytes_of(one.contiguous()).tobytes() == bytes_of(other.contiguous()).tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5), tensors()
)
states = st.dictionaries(
    st.text(max_size=4).filter(lambda key: key != "format_version"),
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(st.one_of(st.integers(0, 9), st.text(max_size=3)), inner, max_size=3),
        ),
        max_leaves=8,
    ),
    max_size=3,
)


@settings(max_examples=60)
@given(states)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    plain = _resolved(state)
    written = write_payload(folder / "000001.pt", plain)
    found = read_payload(folder / "000001.pt")
    assert found.pop("format_version") == FORMAT_VERSION and same(found, plain)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert written.added == sum(path.stat().st_size for path in files)
    again = write_payload(folder / "000002.pt", plain)
    assert again.chunks == written.chunks and again.added == (folder / "000002.pt").stat().st_size


def _resolved(value: Any) -> Any:
    """As `to_plain` leaves it: no views that are yet to be calculated."""
    if isinstance(value, torch.Tensor):
        return value.resolve_conj().resolve_neg()
    if isinstance(value, dict):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_resolved, value))
    return value


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_layouts_come_back_and_each_tensor_owns_its_memory(tmp_path: Path) -> None:
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    sparse = torch.eye(3).to_sparse()
    gaps = torch.arange(12.0).view(3, 4)[:, :2]
    write_payload(
        tmp_path / "x.pt", {"last": last, "t": gaps.t(), "gaps": gaps, "sparse": sparse, "scalar": last.sum()}
    )
    found = read_payload(tmp_path / "x.pt")
    assert found["last"].stride() == last.stride() and torch.equal(found["last"], last)
    assert is_dense(found["gaps"]) and torch.equal(found["gaps"], gaps) and torch.equal(found["t"], gaps.t())
    assert torch.equal(found["sparse"].to_dense(), torch.eye(3)) and torch.equal(found["scalar"], last.sum())
    pointers = [found[name].untyped_storage().data_ptr() for name in ("last", "t", "gaps", "scalar")]
    assert len(set(pointers)) == 4
    assert all(found[n].untyped_storage().nbytes() == found[n].nbytes for n in ("last", "t", "gaps", "scalar"))


def test_large_tensors_that_did_not_change_are_kept_once(tmp_path: Path) -> None:
    numbers = OF_ITS_OWN // 4
    frozen, trained = torch.randn(3 * numbers), torch.randn(2 * numbers)
    huge = torch.randn(LARGEST // 4 + 5 * numbers)
    small = {f"small {i}": torch.randn(numbers // 4) for i in range(2 * TOGETHER // (numbers // 4 * 4))}

    def write(number: int) -> Written:
        return write_payload(tmp_path / f"{number}.pt", {"a": frozen, "b": trained, "c": huge, **small})

    first = write(1)
    assert first.added == first.size > frozen.nbytes + trained.nbytes + huge.nbytes
    trained += 1
    huge[-1] += 1  # in the second of its pieces
    second = write(2)
    assert second.size == first.size
    skeleton = (tmp_path / "2.pt").stat().st_size
    assert second.added == skeleton + trained.nbytes + 5 * numbers * 4
    small["small 0"][0] += 1
    assert write(3).added <= skeleton + 100 + TOGETHER
    assert torch.equal(read_payload(tmp_path / "2.pt")["b"], trained)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "000001.pt"
    with pytest.raises(StorageError, match=r"000001.pt is missing"):
        read_payload(path)
    path.write_bytes(b"no zip")
    with pytest.raises(StorageError, match=r"000001.pt cannot be read"):
        read_payload(path)
    torch.save({"format_version": 99}, path)
    with pytest.raises(StorageError, match=r"has format 99; this version reads 1 to 2"):
        read_payload(path)
    torch.save([1], path)
    with pytest.raises(StorageError, match=r"has format None"):
        read_payload(path)
    with pytest.raises(StorageError, match="cannot create"):
        write_payload(path / "below" / "x.pt", {})


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/graybox-was-here"),))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"format_version": FORMAT_VERSION, "tree": Code(), "tensors": [], "chunks": []}, tmp_path / "x.pt")
    with pytest.raises(StorageError, match="cannot be read"):
        read_payload(tmp_path / "x.pt")
    assert not Path("/tmp/graybox-was-here").exists()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file with one piece of 4,000 bytes."""
    write_payload(tmp_path / "x.pt", {"a": torch.randn(1_000), "n": 1})
    return tmp_path / "x.pt"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("tensors", [["float32", [1_001], [1]]]),
        ("tensors", [["float32", [999], [1]]]),
        ("tensors", [["float32", [1_000], [2]]]),
        ("tensors", [["save", [1_000], [1]]]),
        ("tensors", [["float32", [-5], [1]]]),
        ("tensors", [["float32", [1_000]]]),
        ("tensors", []),
        ("tensors", None),
        ("chunks", []),
        ("chunks", [["0" * 64, 4_000]]),
        ("chunks", [["../../x", 4_000]]),
        ("tree", {"a": {"__tensor__": 7}}),
    ],
)
def test_a_description_that_does_not_fit_is_named(written: Path, part: str, value: Any) -> None:
    whole = torch.load(written, weights_only=True)
    torch.save({**whole, part: value}, written)
    with pytest.raises(StorageError, match=r"checkpoint file x.pt (is broken|cannot be read)"):
        read_payload(written)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "more"])
def test_a_broken_piece_is_named(written: Path, damage: str) -> None:
    (piece,) = (written.parent / "shared").iterdir()
    content = bytearray(piece.read_bytes())
    if damage == "gone":
        piece.unlink()
    elif damage == "flip":
        content[1_234] ^= 4
        piece.write_bytes(content)
    else:
        piece.write_bytes(content[:-1] if damage == "cut" else content + b"x")
    with pytest.raises(StorageError, match=f"checkpoint file x.pt cannot be read: .*{piece.name}"):
        read_payload(written)


def test_torch_alone_reads_what_is_no_tensor(written: Path) -> None:
    found = torch.load(written, weights_only=True)
    assert found["format_version"] == 2 and found["tree"]["n"] == 1
    ((name, size),) = found["chunks"]
    content = (written.parent / "shared" / name).read_bytes()
    assert len(content) == size and torch.equal(
        torch.frombuffer(bytearray(content), dtype=torch.float32), read_payload(written)["a"]
    )


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_a_checkpoint_of_every_format_version_opens_and_goes_on(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "fixture"
    with zipfile.ZipFile(checkpoint_fixtures.FIXTURES / f"checkpoints-{version}.zip") as archive:
        archive.extractall(folder)
    expected = checkpoint_fixtures.expected(folder)
    session = checkpoint_fixtures.opened(tmp_path / "root")
    session.stores.checkpoints = CheckpointCatalogue(folder)
    try:
        (record,) = session.stores.checkpoints.list()
        assert (record.id, record.step, record.name, record.reason) == ("000001", 6, "kept", "asked")
        assert session.stores.checkpoints.newest_whole() == record
        assert torch.load(folder / "000001.pt", weights_only=True)["format_version"] == version
        restore_all(session, CheckpointKeeper(session).load(record))
        assert checkpoint_fixtures.found_in(session) == expected["then"]
        checkpoint_fixtures.train(session, 3)
        later = checkpoint_fixtures.found_in(session)
        told = ("step", "age", "position", "learning rates", "name", "frozen", "encounters", "discarded")
        assert {key: later[key] for key in told} == {key: expected["three steps later"][key] for key in told}
        assert later["weights"] != expected["then"]["weights"]
    finally:
        session.stores.close()


def test_one_of_the_first_format_is_kept_on_in_the_present_one(tmp_path: Path) -> None:
    folder = tmp_path / "fixture"
    with zipfile.ZipFile(checkpoint_fixtures.FIXTURES / "checkpoints-1.zip") as archive:
        archive.extractall(folder)
    session = checkpoint_fixtures.opened(tmp_path / "root")
    session.stores.checkpoints = CheckpointCatalogue(folder)
    try:
        keeper = CheckpointKeeper(session)
        restore_all(session, keeper.load(session.stores.checkpoints.get("000001")))
        record = keeper.save("automatic").result()
        assert record.id == "000002" and record.chunks
        first, second = (read_payload(folder / f"{each.id}.pt") for each in session.stores.checkpoints.list())
        for part in ("model", "optimizer", "newcomers"):
            assert same(first[part], second[part])
        assert same(first["samples"], {name: second["samples"][name] for name in first["samples"]})
    finally:
        session.stores.close()


def test_a_whole_session_through_a_file(tmp_path: Path, root: Path) -> None:
    """The shared content may lie elsewhere."""
    first, second = (Opened(root / name, toy_experiment()) for name in ("first", "second"))
    try:
        for _ in range(3):
            first.session.train_one_step()
        store = ChunkStore(tmp_path / "elsewhere")
        write_payload(tmp_path / "x.pt", capture(first.session), store)
        restore_all(second.session, read_payload(tmp_path / "x.pt", store))
        assert differences(whole_state(first.session), whole_state(second.session)) == []
    finally:
        first.close()
        second.close()
