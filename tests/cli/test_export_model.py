from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from graybox.cli.export_model import main, parser
from graybox.commands import EditNeurons, Pause, SaveCheckpoint
from graybox.launch import launch
from graybox.neuron_ops import RemoveNeurons
from graybox.weight_files import read_weights
from tests.cli.conftest import Write
from tests.compared_runs import ask, train
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE
from tests.small_networks import bits

pytestmark = pytest.mark.usefixtures("clean_imports")

WIDE = textwrap.dedent("""
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset
    from graybox import Experiment

    class Wide(nn.Module):
        def __init__(self, wide=8):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(3, wide), nn.BatchNorm1d(wide), nn.Linear(wide, 2)

        def forward(self, x):
            return self.last(torch.relu(self.norm(self.first(x))))

    def get_exp(wide=8):
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(24, 3), torch.arange(24) % 2)
        return Experiment(model=Wide(wide), optimizer_class=torch.optim.SGD, train_dataset=data, eval_dataset=data,
                          seed=1, batch_size=6, full_eval_frequency=0, checkpoint_frequency=0)

    def narrow():
        return get_exp(5)
""")


@pytest.fixture
def run(write: Write, root: Path) -> tuple[Path, Path, dict[str, bytes], Any, torch.Tensor]:
    """(the experiment's file, the root, the weights of the checkpoint, the network, an input) of an edited run."""
    from graybox.cli.experiment_file import load_experiment

    file = write("wide.py", WIDE)
    training = launch(load_experiment(str(file)), root_directory=root)
    train(training, 3)
    ask(training, EditNeurons(RemoveNeurons("first", (1, 4, 6))))
    train(training, 3)
    ask(training, Pause())
    ask(training, SaveCheckpoint("kept"))
    network = training.experiment.model
    weights = {name: bits(value) for name, value in network.state_dict().items()}
    training.close()
    network.eval()
    return file, root, weights, network, torch.randn(7, 3)


def test_weights_without_the_code_that_built_the_network(run: Any, tmp_path: Path, capsys: Any) -> None:
    file, root, weights, _, _ = run
    file.unlink()
    for kind in ("state_dict", "safetensors"):
        output = tmp_path / f"net.{kind}"
        assert main([str(root), "--format", kind, "--output", str(output)]) == 0
        tensors, metadata = read_weights(output)
        assert {name: bits(value) for name, value in tensors.items()} == weights
        count = sum(value.numel() for value in tensors.values())
        assert re.search(rf"{kind} of checkpoint \d+ at step \d+, {count} numbers\n", capsys.readouterr().out)
    assert metadata["structure_changes"]["first.weight"] == {"built": [8, 3], "now": [5, 3]}
    assert metadata["attributes"]["last"] == {"in_features": 5, "out_features": 2}
    assert "module_classes" not in metadata and int(metadata["step"]) >= 6


def test_a_checkpoint_of_before(run: Any, tmp_path: Path) -> None:
    _, root, _, _, _ = run
    output = str(tmp_path / "net.pt")
    for named in (["--checkpoint", "000001", str(root)], [f"{root}@000001"]):
        assert main([*named, "--format", "state_dict", "--output", output]) == 0
        assert torch.load(output)["first.weight"].shape == (8, 3)


def test_a_program(run: Any, tmp_path: Path, capsys: Any) -> None:
    file, root, _, network, x = run
    output = tmp_path / "net.pt2"
    arguments = [str(root), "--format", "program", "--output", str(output)]
    assert main([*arguments, "--experiment", str(file)]) == 0
    assert capsys.readouterr().out.endswith(", for batches of any size\n")
    with torch.no_grad():
        assert bits(torch.export.load(output).module()(x)) == bits(network(x))


def test_with_the_code_the_classes_are_told_too(run: Any, tmp_path: Path) -> None:
    file, root, weights, _, _ = run
    output = tmp_path / "net.safetensors"
    assert main([str(root), "--format", "safetensors", "--output", str(output), "--experiment", str(file)]) == 0
    tensors, metadata = read_weights(output)
    assert {name: bits(value) for name, value in tensors.items()} == weights
    assert metadata["module_classes"]["first"].endswith("Linear") and metadata["network"] == "wide.Wide"
    assert metadata["structure_changes"]["first.weight"]["built"] == [8, 3] and "step" in metadata


def test_what_is_wrong_is_said_and_no_file_is_there(run: Any, tmp_path: Path, capsys: Any) -> None:
    file, root, _, _, _ = run
    output = tmp_path / "net.pt2"
    tail = ["--output", str(output)]
    program = [str(root), "--format", "program", *tail]
    for arguments, message in (
        (program, "give --experiment FILE.py, or choose --format state_dict or safetensors"),
        ([*program, "--experiment", "wide"], "'wide' is no experiment file"),
        ([*program, "--experiment", str(tmp_path / "gone.py")], "there is no experiment file"),
        ([*program, "--experiment", f"{file}:narrow"], r"first.weight is \[8, 3\] there and \[5, 3\] here"),
        ([f"{root}@000077", "--format", "state_dict", *tail], "there is no checkpoint of '000077'"),
        ([str(tmp_path / "nowhere"), "--format", "state_dict", *tail], "there is no folder"),
        ([str(root), "--format", "state_dict", "--output", str(tmp_path / "no" / "net.pt")], "cannot write"),
    ):
        assert main(arguments) == 2
        shown = capsys.readouterr()
        assert re.search(message, shown.err) and shown.err.startswith("graybox export-model: ") and shown.out == ""
        assert not output.exists()


def test_code_of_the_user_that_raises_is_shown(run: Any, write: Write, tmp_path: Path, capsys: Any) -> None:
    _, root, _, _, _ = run
    file = write("broken.py", "def get_exp():\n    return 1 / 0\n")
    arguments = [str(root), "--format", "program", "--output", str(tmp_path / "net.pt2"), "--experiment", str(file)]
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert "return 1 / 0" in shown and "broken.py:2 raised ZeroDivisionError" in shown


def test_as_a_process(run: Any, tmp_path: Path) -> None:
    _, root, weights, _, _ = run
    done = subprocess.run(
        [sys.executable, "-P", "-m", "graybox.cli", "export-model", root, "--format=state_dict", "--output=net.pt"],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {name: bits(value) for name, value in torch.load(tmp_path / "net.pt").items()} == weights


def test_every_option_is_documented() -> None:
    text = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    known = {a.option_strings[0] for a in parser()._actions if a.option_strings and a.dest != "help"}
    assert set(re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE)) == known
