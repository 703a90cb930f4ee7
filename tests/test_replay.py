"""Replay: a session of many interventions of all kinds is gone through again, to the same bits; as a script too."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graybox.cli.replay import main
from graybox.commands import (
    Command,
    CopyColumn,
    CorrectLabels,
    DeleteColumn,
    DiscardSamples,
    EditNeurons,
    KeepRatio,
    KeepShare,
    Pause,
    RebalanceClasses,
    RecordQuery,
    Redo,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    SetMode,
    SetPlotNote,
    StartEvaluation,
    TagSamples,
    Undo,
    WeighSamples,
)
from graybox.errors import GrayboxError, NotFound, Refused
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.metric_choice import library_ready
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    FreezeIncoming,
    OverrideWeights,
    Reinitialize,
    RemoveNeurons,
    SetLearningRate,
    SortByStat,
    Unfreeze,
    Zerofy,
)
from graybox.replay import Replay, Source, find_run
from graybox.session_script import session_script
from graybox.tunable import Tunable
from tests.patience import PATIENCE
from tests.small_experiments import Augmented, toy_data, toy_experiment
from tests.test_sample_interventions import apply

MODULE = "tests.test_replay"


def get_exp() -> Experiment:
    """Its first weights are other ones each time that it is built."""
    torch.manual_seed(random.SystemRandom().getrandbits(32))
    model = toy_experiment().model
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return toy_experiment(
        model=model, train_dataset=Augmented(60), eval_dataset=toy_data(20, seed=1), seed=None, full_eval_frequency=7,
        checkpoint_frequency=9, hyper_parameters=[Tunable("alpha", 0.5)], training_steps_to_do=100_000,
    )  # fmt: skip


def some_command(dice: random.Random, training: Training, kept: list[str]) -> Command:
    session = training.trainer.session
    conv = session.network.find_layer("conv")[1].neuron_count
    neuron = dice.randrange(conv)
    rows = {"train": np.array(sorted(dice.sample(range(60), 4)))}
    some = tuple(("train", str(row)) for row in rows["train"])
    pool: list[Command] = [
        EditNeurons(Freeze("conv", (neuron,))), EditNeurons(Unfreeze("conv", (neuron,))),
        EditNeurons(AddNeurons("conv", count=1)), EditNeurons(RemoveNeurons("conv", (neuron,))),
        EditNeurons(Reinitialize("conv", (neuron,))), EditNeurons(Reinitialize("out", (1,), perturbation_ratio=0.2)),
        EditNeurons(SetLearningRate("conv", (neuron,), rate=0.5)), EditNeurons(Zerofy("conv", (neuron,))),
        EditNeurons(SortByStat("conv")), EditNeurons(FreezeIncoming("out", (0,))),
        EditNeurons(OverrideWeights("conv", (neuron,), values=np.full((1, 1, 3, 3), dice.random(), dtype=np.float32))),
        DiscardSamples(some), DiscardSamples(some, False), TagSamples(rows=rows, tag=dice.choice("ab")),
        TagSamples(some, tag="a", value=False), CorrectLabels(some, label=dice.randrange(3)),
        CorrectLabels(some, label=None), WeighSamples(some, weight=dice.choice([0.5, 2.5])), RebalanceClasses(),
        RebalanceClasses(how="none"), KeepShare(rows=rows, share=0.5), KeepRatio(rows=rows, ratio=0.02),
        CopyColumn("loss", dice.choice("xy")), DeleteColumn("x"), RecordQuery("loss > 1", 3),
        SetHyperParameters({"learning_rate": dice.choice([0.003, 0.02]), "optimizer.betas.0": dice.choice([0.8, 0.9])}),
        SetHyperParameters({"batch_size": dice.randrange(3, 12), "dropout.drop": dice.choice([0.1, 0.5])}),
        SetHyperParameters({"loss.label_smoothing": dice.choice([0.0, 0.1]), "alpha": dice.random()}),
        Pause(), Resume(), Undo(), Undo(), Redo(), SaveCheckpoint("kept"), StartEvaluation("val"),
        SetPlotNote("train", "loss", session.branch, session.age, "here"),
        SetMode(dice.choice(["audit", "train", "train"])),
        *[RestoreCheckpoint(dice.choice(kept)) for _ in kept[:1]],
        *[RestoreCheckpoint(f"{dice.choice(kept)}@@weights_step={_step_of(training, kept)}") for _ in ()],
    ]  # fmt: skip
    return dice.choice(pool)


def _step_of(training: Training, kept: list[str]) -> int:
    return training.stores.checkpoints.get(kept[-1]).step


def live(root: Path, seed: int, wanted: int) -> dict[str, int]:
    """A session with so many interventions; how many of each kind it had."""
    dice = random.Random(seed)
    assert library_ready(PATIENCE)  # or evaluations would wait for it, for as long as this machine takes
    training = launch(get_exp(), root_directory=root)
    try:
        kept: list[str] = []
        tries = 0
        while training.stores.journal.last_sequence < wanted and tries < 40 * wanted:
            tries += 1
            command = some_command(dice, training, kept)
            try:
                done = apply(training, command)
            except GrayboxError:
                continue  # what does not fit is refused, and leaves nothing
            if isinstance(command, SaveCheckpoint):
                kept.append(done.value.id)
            for _ in range(dice.randrange(6)):
                training.trainer.tick()
            session = training.trainer.session
            if dice.random() < 0.6 and not session.running:
                apply(training, Resume())
            if dice.random() < 0.6 and session.audit.on:
                apply(training, SetMode("train"))
        for last in (SetMode("train"), Resume()):
            apply(training, last)
        for _ in range(12):
            training.trainer.tick()
    finally:
        training.close()
    kinds: dict[str, int] = {}
    for entry in Source(find_run(root)).entries:
        kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
    return kinds


def last_weights(root: Path) -> dict[str, Any]:
    source = Source(find_run(root))
    found: dict[str, Any] = source.payload(source.records[-1])["model"]
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    from graybox.checkpoint import from_plain

    here, there = from_plain(one), from_plain(other)
    return list(here) == list(there) and all(torch.equal(value, there[name]) for name, value in here.items())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_session_is_gone_through_again_to_the_same_bits(root: Path, seed: int) -> None:
    kinds = live(root / "first", seed, 60)
    assert sum(kinds.values()) >= 60 and len(kinds) >= 12, kinds
    source = Source(find_run(root / "first"))
    replay = Replay(source, get_exp(), root / "second")
    try:
        report = replay.follow()
    finally:
        replay.close()
    assert report.identical and len(report.compared) >= 4, report.compared
    assert max(each.step for each in report.compared) > 10
    assert {each.checkpoint for each in report.compared} >= {r.id for r in source.records if r.name or r.step == 0}
    assert same(last_weights(root / "first"), last_weights(root / "second"))
    again = Source(find_run(root / "second"))
    assert [(e.sequence, e.kind, e.step, e.age, e.branch, e.summary, e.outcome) for e in again.entries] == [
        (e.sequence, e.kind, e.step, e.age, e.branch, e.summary, e.outcome) for e in source.entries
    ]


def test_the_session_as_a_script_comes_to_the_same_bits(root: Path, tmp_path: Path) -> None:
    live(root / "first", 3, 40)
    source = Source(find_run(root / "first"))
    experiment = f"{Path(__file__).resolve()}:get_exp"
    script = tmp_path / "session.py"
    script.write_text(session_script(source, experiment, str(root / "second")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False,
        cwd=Path(__file__).parents[1], env=_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert same(last_weights(root / "first"), last_weights(root / "second"))


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def test_a_run_that_was_killed_is_gone_through_to_its_last_entry(root: Path) -> None:
    from tests.small_experiments import crash

    training = launch(get_exp(), root_directory=root / "first")
    for command in (TagSamples((("train", "3"),), tag="a"), EditNeurons(Freeze("conv", (1,)))):
        for _ in range(12):
            training.trainer.tick()
        apply(training, command)
    steps = training.trainer.session.step
    weights = {name: value.clone() for name, value in training.trainer.session.network.state_dict().items()}
    crash(training)
    replay = Replay(Source(find_run(root / "first")), get_exp(), root / "second")
    replay.follow()
    here = replay.session.network.state_dict()
    assert replay.session.step == steps > 5 and all(torch.equal(value, here[name]) for name, value in weights.items())
    replay.close()


def test_another_experiment_is_told_apart(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    live(root / "first", 5, 10)
    source = Source(find_run(root / "first"))
    with pytest.raises(Refused, match="does not fit"):
        Replay(source, toy_experiment(train_dataset=toy_data(30)), root / "second")
    file = tmp_path / "other.py"
    file.write_text(
        "from tests.test_replay import get_exp as same\n\n\n"
        "def get_exp():\n    made = same()\n    made.model.drop.p = 0.4\n    return made\n"
    )
    assert main([str(root / "first"), "--experiment", f"{file}:get_exp"]) == 1
    assert "differs from checkpoint" in capsys.readouterr().out
    assert (
        main([str(root / "first"), "--experiment", f"{Path(__file__).resolve()}:get_exp", "--to", str(root / "x")]) == 0
    )
    shown = capsys.readouterr().out
    assert "bit for bit" in shown and "kept as" in shown


def test_what_cannot_be_gone_through_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFound, match="there is no run"):
        find_run(root / "none")
    live(root / "first", 6, 5)
    experiment = f"{Path(__file__).resolve()}:get_exp"
    assert main([str(root / "first"), "--experiment", experiment, "--to", str(root / "first")]) == 2
    assert "a root directory of its own" in capsys.readouterr().err
    script = root / "no" / "such" / "folder.py"
    assert main([str(root / "first"), "--experiment", experiment, "--script", str(script)]) == 2
    assert "cannot write" in capsys.readouterr().err
    run = find_run(root / "first")
    for path in (run.path / "checkpoints").glob("000001*"):
        path.unlink()
    assert main([str(root / "first"), "--experiment", experiment]) == 2
    assert "no checkpoint of its beginning" in capsys.readouterr().err
