"""What the README says is so: its example trains, its options and variables exist, its links lead somewhere."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graybox.cli import backend, demo
from graybox.cli.experiment_file import load_experiment
from graybox.dashboard.settings import build_parser
from graybox.launch import launch
from graybox.snapshot import TrainerState
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
INTERNAL_VARIABLES = {"GRAYBOX_STOP_WITH_STDIN"}  # between the demo and its children


def examples() -> dict[str, str]:
    """By the file name that their first line gives."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return {block.split('"""')[1].split(":")[0]: block for block in blocks}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples and bright and dark pictures, as the README describes it."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for name, low in (("bright", 128), ("dark", 0)):
            folder = tmp_path / "my-pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(low, low + 128, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    for file, code in examples().items():
        (tmp_path / file).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("clean_imports", "pictures")
@pytest.mark.filterwarnings("ignore:this machine has no cuda")
@pytest.mark.parametrize(("file", "steps", "loss"), [("my_experiment.py", 25, 0.1), ("resnet.py", 4, 2.0)])
def test_the_examples_train(file: str, steps: int, loss: float) -> None:
    assert set(examples()) == {"my_experiment.py", "resnet.py"}
    experiment = load_experiment(file)
    experiment.seed = 1  # of the order of the pictures; how fast it learns depends on it
    assert experiment.class_names == ("bright", "dark")
    training = launch(experiment, root_directory=experiment.root_log_dir)
    try:
        for _ in range(steps):
            assert training.trainer.tick()
        now = training.trainer.latest()
        training.trainer.end()
    finally:
        training.close()
    assert (now.state, now.step, now.age) == (TrainerState.RUNNING, steps, steps * 48)
    assert now.train_loss is not None and now.train_loss < loss
    assert [path.name for path in Path("my-runs").glob("*/run.json")] == ["run.json"]


def options(parser: argparse.ArgumentParser) -> set[str]:
    """The main spelling of every option."""
    return {action.option_strings[0] for action in parser._actions if action.dest != "help"}


@pytest.mark.parametrize("parser", [backend.parser(), demo.parser(), build_parser()], ids=lambda parser: parser.prog)
def test_every_option_is_documented(parser: argparse.ArgumentParser) -> None:
    assert {option for option in options(parser) if not re.search(rf"`{option}[ `]", README)} == set()


def test_every_documented_option_exists() -> None:
    known = options(backend.parser()) | options(demo.parser()) | options(build_parser())
    assert set(re.findall(r"^\| `(--\w+)", README, re.MULTILINE)) == known


def test_every_environment_variable_is_documented() -> None:
    sources = [*(REPOSITORY / "graybox").rglob("*.py"), *(REPOSITORY / "scripts").glob("*.py")]
    variable = r"\b(?:GRPC|GRAYBOX)_[A-Z_]*[A-Z]\b"
    # The dashboard puts some names together from parts, so that the source is not the only place to look.
    used = {name for path in sources for name in re.findall(variable, path.read_text(encoding="utf-8"))}
    documented = set(re.findall(variable, README))
    assert used - documented - INTERNAL_VARIABLES == set()
    assert documented <= used


def test_links_lead_somewhere() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert linked
    assert [target for target in linked if not (REPOSITORY / target).is_file()] == []


def test_verbs_of_the_makefile_are_documented() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)) - {"help"}
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert verbs == set(re.findall(r"^\| `make ([a-z-]+)`", contributing, re.MULTILINE))
