from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, StorageError
from graybox.store.record_log import HEADER, RecordLog, read_records
from tests.patience import PATIENCE

KIND = b"TEST"
REPOSITORY = Path(__file__).parents[2]
payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


def open_log(path: Path) -> RecordLog:
    return RecordLog(path, kind=KIND, version=1)


def read(path: Path, start: int = 0) -> list[tuple[int, bytes]]:
    return list(read_records(path, KIND, 1, start))


def write(path: Path, records: list[bytes]) -> list[int]:
    log = open_log(path)
    ends = [log.append(record) for record in records]
    log.close()
    return ends


@settings(max_examples=40, deadline=None)
@given(first=payloads, second=payloads)
def test_what_was_appended_is_read_from_any_record_on(first: list[bytes], second: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.log"
        ends = write(path, first) + write(path, second)
        expected = list(zip(ends, first + second, strict=True))
        assert read(path) == expected
        for index, end in enumerate(ends):
            assert read(path, end) == expected[index + 1 :]
        replayed: list[bytes] = []
        log = RecordLog(path, kind=KIND, version=1, replay=replayed.append)
        assert replayed == first + second
        assert log.size == path.stat().st_size
        log.close()


def test_a_log_cut_at_any_byte_keeps_every_whole_record(tmp_path: Path) -> None:
    path, cut_path = tmp_path / "a.log", tmp_path / "cut.log"
    records = [b"one", b"\0" * 9, b"three" * 5, b"x"]
    ends = write(path, records)
    content = path.read_bytes()
    for cut in range(len(content) + 1):
        cut_path.write_bytes(content[:cut])
        whole = [record for end, record in zip(ends, records, strict=True) if end <= cut]
        assert [record for _, record in read(cut_path)] == whole, cut
        log = open_log(cut_path)
        log.append(b"after")
        log.close()
        assert [record for _, record in read(cut_path)] == [*whole, b"after"], cut
        at_a_seam = cut < HEADER.size or cut in (HEADER.size, *ends)
        kept = list(tmp_path.glob("cut.log.torn-*"))
        assert len(kept) == (0 if at_a_seam else 1), cut
        for file in kept:
            assert content[:cut].endswith(file.read_bytes())
            file.unlink()
        cut_path.unlink()


def test_a_flipped_byte_ends_the_log_before_its_record(tmp_path: Path) -> None:
    path, broken = tmp_path / "a.log", tmp_path / "broken.log"
    records = [b"one", b"\0" * 9, b"three" * 5, b"x"]
    ends = write(path, records)
    content = path.read_bytes()
    for position in range(len(content)):
        broken.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        if position < HEADER.size:
            with pytest.raises(StorageError, match=r"broken\.log"):
                read(broken)
            with pytest.raises(StorageError, match=r"broken\.log"):
                open_log(broken)
        else:
            whole = [record for end, record in zip(ends, records, strict=True) if end <= position]
            assert [record for _, record in read(broken)] == whole, position


def test_zeros_after_a_power_cut_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [b"one"])
    with open(path, "ab") as file:
        file.write(b"\0" * 4096)
    assert [record for _, record in read(path)] == [b"one"]
    write(path, [b"two"])
    assert [record for _, record in read(path)] == [b"one", b"two"]


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert read(path) == []
    log = open_log(path)
    assert read(path) == []
    position = 0
    for number in range(5):
        log.append(b"%d" % number)
        ((position, payload),) = read(path, position)
        assert payload == b"%d" % number
    log.close()


def test_misuse_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = open_log(path)
    with pytest.raises(Invalid, match="1 to"):
        log.append(b"")
    log.append(b"one")
    log.sync()
    log.close()
    log.close()
    log.sync()
    with pytest.raises(StorageError, match="is closed"):
        log.append(b"two")
    with pytest.raises(StorageError, match="kind b'TEST', not b'OTHE'"):
        RecordLog(path, kind=b"OTHE", version=1)
    RecordLog(path, kind=KIND, version=2).close()  # of an older version
    newer = tmp_path / "newer.log"
    RecordLog(newer, kind=KIND, version=2).close()
    with pytest.raises(StorageError, match="format version 2; this version of Graybox reads up to 1"):
        RecordLog(newer, kind=KIND, version=1)
    with pytest.raises(Invalid, match="4 bytes"):
        RecordLog(path, kind=b"LONGER", version=1)
    with pytest.raises(StorageError, match="cannot open the log"):
        open_log(tmp_path / "missing" / "a.log")
    (tmp_path / "text.log").write_bytes(b"this is something else altogether")
    with pytest.raises(StorageError, match="not a Graybox log"):
        open_log(tmp_path / "text.log")
    assert read(path) == [(HEADER.size + 8 + 3, b"one")]


FULL_DISK = """
import resource, sys
from graybox.errors import StorageError
from graybox.store.record_log import RecordLog
log = RecordLog(sys.argv[1], kind=b"TEST", version=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log.append(b"a" * 20)
for _ in range(3):
    try:
        log.append(b"b" * 90)
    except StorageError as error:
        assert "cannot append" in str(error), error
    else:
        sys.exit("a record went beyond the end of the disk")
log.append(b"c" * 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(b"d" * 90)
log.sync()
"""


def test_a_full_disk_costs_the_record_that_did_not_fit_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], cwd=REPOSITORY, check=True, timeout=PATIENCE)
    assert [record for _, record in read(path)] == [b"a" * 20, b"c" * 20, b"d" * 90]
    assert open_log(path).size == path.stat().st_size


WRITER = """
import os, sys
from graybox.store.record_log import RecordLog
log = RecordLog(sys.argv[1], kind=b"TEST", version=1)
for number in range(1_000_000):
    log.append(b"%d" % number * (number % 50 + 1))
    os.write(1, b"%d\\n" % number)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(500):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read()
    writer.stdout.close()
    writer.wait(timeout=PATIENCE)
    last = int(rest.split()[-1]) if rest.split() else 499
    found = [record for _, record in read(path)]
    assert len(found) - 1 in (last, last + 1)
    assert found == [b"%d" % number * (number % 50 + 1) for number in range(len(found))]
