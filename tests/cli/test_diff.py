from __future__ import annotations

import json
from pathlib import Path

import pytest

from graybox.cli.diff import main
from graybox.commands import EditNeurons, SetHyperParameters
from graybox.comparison.report import report
from graybox.comparison.runs import compare
from graybox.neuron_ops import RemoveNeurons
from tests.compared_runs import finished


def test_text_and_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(root / "one"), str(root / "other")
    finished(root / "one")
    finished(root / "other", EditNeurons(RemoveNeurons("layers.1", (2,))), SetHyperParameters({"learning_rate": 0.25}))
    assert main([one, other]) == 0
    assert capsys.readouterr().out == report(compare(one, other))
    assert main([one, other, "--json", "--top", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == compare(one, other, top=2).to_json()
    assert len(found["moved"]["neurons"]) == 2 and found["settings"]["learning_rate"] == [0.01, 0.25]


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5"])
def test_a_wrong_number(top: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["a", "b", f"--top={top}"])
    assert left.value.code == 2 and f"{top!r} is no number of 1 or more" in capsys.readouterr().err


def test_what_is_not_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(root / "one")
    for wrong, message in (
        (str(root / "nowhere"), "there is no folder"),
        (f"{root / 'one'}@999999", "there is no checkpoint of '999999'"),
        (f"{root / 'one'}@!", "'!' names no checkpoint"),
    ):
        for pair in ([wrong, str(root / "one")], [str(root / "one"), wrong]):
            assert main(pair) == 2
            shown = capsys.readouterr()
            assert message in shown.err and shown.err.startswith("graybox diff: ") and shown.out == ""
