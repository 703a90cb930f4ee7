from __future__ import annotations

from pathlib import Path

import pytest

from graybox.comparison.place import Place
from graybox.errors import Invalid, NotFound, StorageError
from graybox.store.checkpoints import CheckpointCatalogue, CheckpointRecord
from graybox.store.root import Root


def made_run(root: Path, checkpoints: int = 2) -> Path:
    run = Root(root).create_run("one")
    catalogue = CheckpointCatalogue(run.path / "checkpoints")
    for number in range(checkpoints):
        identity = catalogue.next_id()
        path = catalogue.path(identity)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 9)
        catalogue.add(CheckpointRecord(identity, experiment_hash="abc", step=10 * number))
    return run.path


def test_a_root_means_its_newest_run_and_a_run_itself(root: Path) -> None:
    older = made_run(root)
    newer = made_run(root)
    assert Place(str(root)).run.path == newer
    assert Place(str(older)).run.path == older
    assert Place(str(older)).name == older.name


@pytest.mark.parametrize(
    ("reference", "identity"),
    [
        ("", "000002"),
        ("@000001", "000001"),
        ("@abc", "000002"),
        ("@abc@@step=0", "000001"),
        ("@abc@@weights_step=0", "000001"),
    ],
)
def test_a_checkpoint_is_named_behind_an_at(reference: str, identity: str, root: Path) -> None:
    run = made_run(root)
    for where in (root, run):
        place = Place(f"{where}{reference}")
        record = place.checkpoint()
        assert record is not None and record.id == identity
        assert place.run.path == run
        assert place.file_of(record).name == f"{identity}.pt"


def test_folders_with_an_at_in_their_own_name(tmp_path: Path) -> None:
    odd = tmp_path / "runs@home" / "a@b"
    run = made_run(odd)
    assert Place(str(odd)).run.path == run
    assert Place(f"{odd}@000001").reference == "000001"
    (tmp_path / "runs").mkdir()
    assert Place(f"{odd}@abc@@step=0").run.path == run


def test_what_is_not_there_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"there is no folder 'nowhere' in .*: name a root directory"):
        Place("nowhere")
    with pytest.raises(NotFound, match="there is no folder 'nowhere'"):
        Place("nowhere@000001")
    with pytest.raises(NotFound, match="there is no run in"):
        Place(str(root))
    made_run(root)
    with pytest.raises(NotFound, match="there is no checkpoint of 'xyz'; the newest is 000002"):
        Place(f"{root}@xyz")
    with pytest.raises(Invalid, match="names no checkpoint"):
        Place(f"{root}@a b")
    assert list(tmp_path.iterdir()) == [root], "nothing is made by looking"


def test_a_run_without_checkpoints_and_a_broken_one(root: Path) -> None:
    assert Place(str(made_run(root, checkpoints=0))).checkpoint() is None
    run = made_run(root)
    (run / "checkpoints" / "000002.pt").write_bytes(b"other")
    place = Place(str(run))
    record = place.checkpoint()
    assert record is not None and record.id == "000001", "the newest whole one"
    with pytest.raises(StorageError, match=r"checkpoint 000002 of .* is broken, or was removed just now"):
        place.file_of(place.checkpoints.get("000002"))
