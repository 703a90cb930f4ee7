"""`graybox export`: samples of runs on disk, while they train and after."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graybox.cli.export import main
from graybox.store.root import Root
from graybox.store.sample_table import SampleTable
from graybox.store.samples import SampleStore
from tests.conftest import REPOSITORY
from tests.store.exported_columns import assert_is_table, frame_of

CLASSES = ("cat", "dog")


@pytest.fixture
def store(root: Path) -> SampleStore:
    """Of a run that a backend works on: written, and not closed."""
    run = Root(root).create_run("digits")
    run.update(class_names=list(CLASSES), step=7, age=56)
    made = SampleStore(run.path)
    made.add_split("train", 20, np.arange(20, dtype=np.int64) % 2, "fingerprint")
    made.record_batch("train", np.arange(12), np.linspace(0, 1, 12), np.zeros(12, np.int64), 12)
    made.set_tag("train", "a, b", np.array([1, 3]), True)
    made.set_discarded("train", np.array([3]), True)
    made.sync()
    return made


def table_of(store: SampleStore) -> SampleTable:
    return SampleTable(list(store.splits.values()), CLASSES)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_has_what_the_run_has(
    root: Path, tmp_path: Path, store: SampleStore, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "samples"
    query = "loss >= 0.5 sortby loss desc"
    assert main([str(root), "--query", query, "--format", kind, "--output", str(file)]) == 0
    run = Root(root, read_only=True).latest_run()
    assert run is not None and capsys.readouterr().out == f"{file}: 6 samples of run {run.run_id}\n"
    assert_is_table(frame_of(kind, file.read_bytes()), table_of(store), np.arange(11, 5, -1))


def test_what_comes_meanwhile_is_in_the_next_one(root: Path, tmp_path: Path, store: SampleStore) -> None:
    file = tmp_path / "samples.csv"
    for discarded in ([3], [3, 5]):
        store.set_discarded("train", np.array(discarded), True)
        store.sync()
        assert main([str(root), "--query", "discarded", "--columns", "id", "--output", str(file)]) == 0
        assert pd.read_csv(file)["id"].tolist() == discarded
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["samples.csv"]


def test_a_manifest_of_the_run(root: Path, tmp_path: Path, store: SampleStore) -> None:
    file = tmp_path / "manifest.json"
    assert main([str(root), "--format", "manifest", "--output", str(file)]) == 0
    told = json.loads(file.read_text())
    assert (told["step"], told["age"], told["class_names"]) == (7, 56, ["cat", "dog"])
    assert told["splits"]["train"]["rows"] == [row for row in range(20) if row != 3]
    assert told["splits"]["train"]["tags"] == {"a, b": [1, 3]}


def test_to_the_terminal_with_chosen_columns(
    root: Path, store: SampleStore, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([str(root), "--columns", '"tag:a, b",label', "--query", "id < 2"]) == 0
    assert capsysbinary.readouterr().out == b'"tag:a, b",label,label_name\r\nFalse,0,cat\r\nTrue,1,dog\r\n'


def test_whoever_reads_may_stop(root: Path, store: SampleStore) -> None:
    store.add_split("more", 200_000, None, "more")
    store.sync()
    process = subprocess.Popen(
        [sys.executable, "-m", "graybox.cli", "export", str(root)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b"id,split,")
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--query", "los > 1"], "do you mean loss"),
        (["--query", "show count"], "its query has no show"),
        (["--columns", "los"], "there is no column 'los'; do you mean loss"),
        (["--format", "manifest", "--columns", "loss"], "a manifest has no columns"),
        (["--format", "parquet"], "say where it goes by --output FILE"),
        (["--run", "nope"], "there is no run 'nope'"),
        (["--output", "no/such/folder/x.csv"], "cannot write no/such/folder/x.csv: No such file or directory"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: SampleStore,
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main([str(root), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("graybox export: ") and told in said and said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert f"there is no run in {tmp_path / 'nothing'}" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()
