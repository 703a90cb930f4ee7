"""`graybox journal`: the whole journal, in forms that others read."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from graybox.cli.journal import main
from graybox.store.journal import Journal
from graybox.store.root import Root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run = Root(tmp_path / "root").create_run("digits")
    journal = Journal(run.path / "journal.jsonl")
    for number, (kind, summary, undo) in enumerate(
        [
            ("tag_add", 'Tagged 3 samples "hard, very"', {"rows": {"train": [1]}}),
            ("pause", "Paused\nby\r\nerror; ünï → ✓", {}),
            ("undo", "Undid: it", {}),
            ("hp_change", "=1+1", {"changes": {"learning_rate": 0.1}}),
        ]
    ):
        journal.append(
            time_ms=1_700_000_000_000 + number, actor="ada, bob", kind=kind, step=number, age=8 * number, branch=0,
            summary=summary, arguments={"sequence": 1} if kind == "undo" else {"x": [1, "é"]}, undo=undo,
        )  # fmt: skip
    journal.close()
    return tmp_path / "root"


def entries(root: Path) -> list[dict[str, object]]:
    run = Root(root, read_only=True).latest_run()
    assert run is not None
    return [asdict(entry) for entry in Journal(run.path / "journal.jsonl", read_only=True).entries()]


def test_csv_holds_every_entry(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(root)]) == 0
    text = capsys.readouterr().out
    assert main([str(root), "--output", str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    frame = pd.read_csv(tmp_path / "out.csv")
    for row, (_, series), entry in zip(rows, frame.iterrows(), entries(root), strict=True):
        assert row["summary"] == entry["summary"] and series["step"] == entry["step"]
        assert json.loads(row["arguments"]) == entry["arguments"]
        assert row["time"] == f"2023-11-14T22:13:20.{int(row['sequence']) - 1:03d}+00:00"
    assert [row["undo_state"] for row in rows] == ["undone", "", "", "next"]  # a later edit ends what could be redone
    assert text.startswith("sequence,time,actor")


def test_json_lines_are_the_entries(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "--format", "jsonl", "--output", str(tmp_path / "out.jsonl")]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == entries(root)
    assert "4 interventions of run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["{root}", "--run", "nope"], "there is no run 'nope'"), (["{root}/none"], "none"),
     (["{root}", "--output", "{root}/no/such/folder.csv"], "cannot write")],
)  # fmt: skip
def test_what_is_not_there_is_said(
    root: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([each.format(root=root) for each in arguments]) == 2
    assert said in capsys.readouterr().err
