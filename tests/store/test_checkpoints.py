from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound, StorageError
from graybox.store import checkpoints as checkpoints_module
from graybox.store.checkpoints import CheckpointCatalogue, CheckpointRecord
from graybox.store.files import write_atomically
from graybox.store.retention import KeepCheckpoints
from tests.patience import PATIENCE


def save(catalogue: CheckpointCatalogue, *shared: bytes, **fields: object) -> CheckpointRecord:
    """What the trainer does: the shared content first, the file, then the manifest."""
    chunks = tuple(catalogue.shared.put(shared)[0])
    record = CheckpointRecord(id=catalogue.next_id(), chunks=chunks, **fields)  # type: ignore[arg-type]
    catalogue.folder.mkdir(exist_ok=True)
    catalogue.path(record.id).write_bytes(b"tensors of " + record.id.encode())
    return catalogue.add(record)


@pytest.fixture
def catalogue(tmp_path: Path) -> CheckpointCatalogue:
    return CheckpointCatalogue(tmp_path / "checkpoints")


def test_what_was_added_is_listed_in_order_by_everybody(catalogue: CheckpointCatalogue) -> None:
    other = CheckpointCatalogue(catalogue.folder)
    assert catalogue.list() == other.list() == []
    first = save(catalogue, experiment_hash="abc", step=10, age=640, metrics={"val/loss": 0.5}, name="größer")
    content = b"tensors of 000001"
    assert (first.id, first.file, first.bytes) == ("000001", "000001.pt", len(content))
    assert first.sha256 == hashlib.sha256(content).hexdigest()
    assert first.reference == "abc@@step=10"
    rest = [save(catalogue, step=step) for step in (5, 3)]
    assert catalogue.list() == other.list() == CheckpointCatalogue(catalogue.folder).list() == [first, *rest]
    assert other.get("000002") == rest[0]
    with pytest.raises(NotFound, match="no checkpoint '7'; the newest is 000003"):
        catalogue.get("7")


def test_references(catalogue: CheckpointCatalogue) -> None:
    with pytest.raises(NotFound, match="this run has none yet"):
        catalogue.resolve("abc")
    a10 = save(catalogue, experiment_hash="abc", step=10)
    a20 = save(catalogue, experiment_hash="abc", step=20)
    b20 = save(catalogue, experiment_hash="def", step=20)
    a10_again = save(catalogue, experiment_hash="abc", step=10, branch=1)
    assert catalogue.resolve("abc") == (a10_again, False)
    assert catalogue.resolve("def") == (b20, False)
    assert catalogue.resolve("abc@@step=20") == (a20, False)
    assert catalogue.resolve("abc@@step=10") == (a10_again, False)
    assert catalogue.resolve("abc@@weights_step=20") == (a20, True)
    assert catalogue.resolve(a10.id) == (a10, False)
    for unknown, reason in [
        ("xyz", "no checkpoint of 'xyz'; the newest is 000004"),
        ("abc@@step=15", "abc has no checkpoint at step 15; it has steps 10, 20"),
        ("xyz@@weights_step=10", "no checkpoint of 'xyz'"),
        ("000009", "no checkpoint of '000009'"),
    ]:
        with pytest.raises(NotFound, match=reason):
            catalogue.resolve(unknown)
    for malformed in ["", "abc@@", "abc@@step=", "abc@@step=x", "abc@@step=-1", "abc@@epoch=1", "@@step=1", "../x",
                      "abc@@step=1@@step=2", "abc\n", "abc@@step=" + "9" * 30]:  # fmt: skip
        with pytest.raises(Invalid, match="names no checkpoint"):
            catalogue.resolve(malformed)


def test_an_id_is_never_given_out_twice(catalogue: CheckpointCatalogue) -> None:
    assert [catalogue.next_id(), catalogue.next_id()] == ["000001", "000002"]
    assert save(catalogue).id == "000003"
    catalogue.path("000007").write_bytes(b"a file whose manifest a kill prevented")
    assert CheckpointCatalogue(catalogue.folder).next_id() == "000008"
    newest = save(catalogue)
    catalogue.remove(newest.id)
    catalogue.path("000007").unlink()
    again = CheckpointCatalogue(catalogue.folder)
    assert (newest.id, again.next_id()) == ("000008", "000009")
    assert [record.id for record in again.list()] == ["000003"]


def test_an_id_does_not_wait_for_a_disk(catalogue: CheckpointCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, written = threading.Event(), threading.Event()

    def slow_disk(path: Path, content: bytes) -> None:
        writing.set()
        assert written.wait(2 * PATIENCE)
        write_atomically(path, content)

    monkeypatch.setattr(checkpoints_module, "write_atomically", slow_disk)
    ids: list[str] = []
    background = threading.Thread(target=save, args=(catalogue,))
    owner = threading.Thread(target=lambda: ids.append(catalogue.next_id()))
    background.start()
    assert writing.wait(PATIENCE)
    owner.start()
    owner.join(PATIENCE)
    waited = owner.is_alive()
    written.set()
    background.join(PATIENCE)
    owner.join(PATIENCE)
    assert not waited and ids == ["000002"]


def test_the_file_comes_before_the_manifest(catalogue: CheckpointCatalogue) -> None:
    with pytest.raises(StorageError, match=r"checkpoint 000001 has no file .*000001\.pt"):
        catalogue.add(CheckpointRecord(id="000001"))
    record = save(catalogue)
    with pytest.raises(Invalid, match="there is a checkpoint 000001 already"):
        catalogue.add(record)
    for strange in ("1", "../../000001", "", "a00001"):
        with pytest.raises(Invalid, match="no checkpoint id"):
            catalogue.add(CheckpointRecord(id=strange))
    with pytest.raises(Invalid, match=r"is 000001\.pt, not '/etc/passwd'"):
        catalogue.add(replace(record, file="/etc/passwd"))
    assert catalogue.list() == [record]


def test_the_newest_whole_one_is_found_behind_broken_ones(
    catalogue: CheckpointCatalogue, caplog: pytest.LogCaptureFixture
) -> None:
    assert catalogue.newest_whole() is None
    whole, flipped, short, missing = (save(catalogue) for _ in range(4))
    content = bytearray(catalogue.path(flipped.id).read_bytes())
    content[-1] ^= 1
    catalogue.path(flipped.id).write_bytes(content)
    catalogue.path(short.id).write_bytes(b"tensors")
    catalogue.path(missing.id).unlink()
    assert [catalogue.verify(record) for record in catalogue.list()] == [True, False, False, False]
    assert catalogue.newest_whole() == whole
    for record in (flipped, short, missing):
        assert f"passed over checkpoint {record.id}" in caplog.text
    catalogue.path(whole.id).unlink()
    assert catalogue.newest_whole() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format_version": 3, "id": "000002", "file": "000002.pt"}',
        b'{"format_version": 1, "id": "000002", "file": "../run.json"}',
        b'{"format_version": 1, "id": "000001", "file": "000001.pt"}',
        b'{"format_version": 1, "colour": "red"}',
    ],
)
def test_a_broken_manifest_hides_no_other(
    catalogue: CheckpointCatalogue, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good = save(catalogue)
    (catalogue.folder / "000002.json").write_bytes(content)
    for _ in range(2):
        assert catalogue.list() == [good]
    assert caplog.text.count("left out a checkpoint") == 1
    assert "000002.json" in caplog.text
    assert catalogue.next_id() == "000003"


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["automatic", "automatic", "asked"]),
            st.sampled_from(["", "", "best"]),
            st.lists(st.sampled_from([b"a", b"b", b"c" * 999, b"d"]), max_size=3),
        ),
        max_size=9,
    ),
    st.integers(1, 4),
    st.sets(st.integers(1, 9), max_size=3),
)
def test_retention_takes_what_the_rule_says_and_the_content_that_nobody_else_names(
    made: list[tuple[str, str, list[bytes]]], last: int, keep: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalogue = CheckpointCatalogue(folder)
        records = [save(catalogue, *shared, reason=reason, name=name) for reason, name, shared in made]
        rule, needed = KeepCheckpoints(last=last), frozenset(f"{number:06d}" for number in keep)
        expected = rule.going(records, needed)
        assert catalogue.apply_retention(rule, needed) == expected
        left = [record for record in records if record.id not in expected]
        other = CheckpointCatalogue(folder)
        assert catalogue.list() == other.list() == left
        assert {path.stem for path in Path(folder).glob("*.pt")} == {record.id for record in left}
        assert all(other.verify(record) for record in left)
        if expected:
            named = {name for record in left for name in record.chunks}
            assert {path.name.removesuffix(".z") for path in other.shared.folder.glob("*")} == named
        assert catalogue.apply_retention(rule, needed) == []


def test_what_a_killed_process_left_is_collected(catalogue: CheckpointCatalogue) -> None:
    assert catalogue.collect() == 0
    whole = save(catalogue, b"both", b"first")
    catalogue.shared.put([b"of nobody"])
    catalogue.path("000002").write_bytes(b"a file whose manifest a kill prevented")
    again = CheckpointCatalogue(catalogue.folder)
    assert again.collect() == len(b"of nobody") + len(b"a file whose manifest a kill prevented")
    assert again.verify(whole) and not again.path("000002").exists()
    assert again.next_id() == CheckpointCatalogue(catalogue.folder).next_id() == "000003"


def test_nothing_is_collected_beside_a_manifest_that_cannot_be_read(
    catalogue: CheckpointCatalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be of a later version, and need anything."""
    for number in range(2):
        save(catalogue, b"both", b"of %d" % number, reason="automatic")
    manifest = catalogue.folder / "000001.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content.replace(b'"format_version": 2', b'"format_version": 3'))
    again = CheckpointCatalogue(catalogue.folder)
    before = again.shared.bytes_on_disk()
    assert again.collect() == 0 and "000001.json cannot be read" in caplog.text
    assert again.shared.bytes_on_disk() == before and again.path("000001").exists()
    manifest.write_bytes(content)
    again = CheckpointCatalogue(catalogue.folder)
    again.remove("000002")
    again.collect()
    assert [again.verify(record) for record in again.list()] == [True]
    assert again.shared.bytes_on_disk() == len(b"bothof 0")


def test_the_content_comes_before_the_manifest(catalogue: CheckpointCatalogue) -> None:
    catalogue.folder.mkdir()
    catalogue.path("000001").write_bytes(b"tensors")
    with pytest.raises(StorageError, match=f"checkpoint 000001 needs {'0' * 64}, which is not in .*/shared"):
        catalogue.add(CheckpointRecord(id="000001", chunks=("0" * 64,)))
    assert catalogue.list() == []


def test_what_breaks_in_shared_content_breaks_who_shares_it(catalogue: CheckpointCatalogue) -> None:
    records = [save(catalogue, b"alone"), save(catalogue, b"shared", b"one"), save(catalogue, b"shared", b"two")]
    (catalogue.shared.folder / records[1].chunks[0]).write_bytes(b"Shared")
    again = CheckpointCatalogue(catalogue.folder)
    assert [again.verify(record) for record in records] == [True, False, False]
    assert [again.verify_file(record) for record in records] == [True, True, True]
    assert again.newest_whole() == records[0]
    save(again, b"shared")  # whoever keeps the same content once more mends it
    assert [again.verify(record) for record in records] == [True, True, True]


def test_a_manifest_of_the_first_format_is_read(catalogue: CheckpointCatalogue) -> None:
    record = save(catalogue, step=7)
    value = json.loads((catalogue.folder / "000001.json").read_bytes())
    first = {key: item for key, item in value.items() if key not in ("chunks", "added")} | {"format_version": 1}
    (catalogue.folder / "000001.json").write_bytes(json.dumps(first).encode())
    (read,) = CheckpointCatalogue(catalogue.folder).list()
    assert read == replace(record, added=0) and catalogue.verify(read)


def test_the_manifest_is_plain_json(catalogue: CheckpointCatalogue) -> None:
    record = save(catalogue, experiment_hash="abc", metrics={"val/loss": 0.5})
    value = json.loads((catalogue.folder / "000001.json").read_bytes())
    assert value == {"format_version": 2, **record.to_json()}
    with pytest.raises(Invalid, match="cannot hold this"):
        save(catalogue, metrics={"val/loss": object()})
    with pytest.raises(NotFound):
        catalogue.remove("000099")


def test_an_id_in_the_place_of_the_hash_says_which_branch_is_meant(tmp_path: Path) -> None:
    catalogue = CheckpointCatalogue(tmp_path / "checkpoints")
    for branch in (0, 1):
        record = CheckpointRecord(id=catalogue.next_id(), experiment_hash="abc", step=5, branch=branch)
        path = catalogue.path(record.id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights of branch %d" % branch)
        catalogue.add(record)
    assert [catalogue.resolve(f"{r.id}@@weights_step=5")[0].branch for r in catalogue.list()] == [0, 1]
    assert catalogue.resolve("abc@@weights_step=5")[0].branch == 1
    with pytest.raises(NotFound):
        catalogue.resolve(f"{catalogue.list()[0].id}@@step=6")
