from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from graybox.digests import Digester
from graybox.errors import Invalid
from graybox.fingerprints import VARIABLE, StepFingerprints, fingerprints_every, random_state
from graybox.launch import launch
from graybox.store.fingerprint_log import FILE_NAME, FingerprintLog, read_fingerprints
from graybox.training_step import NonFiniteLoss
from tests.small_experiments import toy_data, toy_experiment, whole_state
from tests.small_networks import bits, differences


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv(VARIABLE, "1")
    yield monkeypatch


def test_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [fingerprints_every({VARIABLE: text}) for text in ("", "0", "1", " 20 ")] == [0, 0, 1, 20]
    assert fingerprints_every({}) == 0
    for text in ("yes", "-1", "1.5", "١"):
        with pytest.raises(Invalid, match=f"{VARIABLE} is '{text}'; give 1 for every step"):
            fingerprints_every({VARIABLE: text})


def test_it_is_off_unless_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    training = launch(toy_experiment(), root_directory=root)
    training.trainer.tick()
    training.close()
    assert list(root.glob(f"*/{FILE_NAME}")) == []


def test_nothing_that_training_does_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for name in ("without", "with"):
        monkeypatch.setenv(VARIABLE, "1" if name == "with" else "0")
        training = launch(toy_experiment(), root_directory=root / name)
        while training.trainer.session.step < 9:
            training.trainer.tick()
        states.append({**whole_state(training.trainer.session), "random": torch.get_rng_state()})
        training.close()
    assert differences(*states) == []


def test_each_record_is_what_went_in_and_came_out(root: Path, asked: Any) -> None:
    """Worked out again from a plain look at the same training."""
    training = launch(toy_experiment(), root_directory=root)
    session, model, digester = training.trainer.session, training.experiment.model, Digester()
    data, labels = toy_data().tensors
    expected: list[dict[str, Any]] = []
    for _ in range(5):
        names = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        weights = {name: int(digester.of([value.clone()])) for name, value in names.items()}
        step = session.step
        while session.step == step:
            training.trainer.tick()
        rows = torch.from_numpy(session.last_train.rows)
        expected.append(
            {
                "step": step,
                "rows": int(digester.of([rows])),
                "inputs": int(digester.of_tree(data[rows])),
                "targets": int(digester.of_tree(labels[rows])),
                "loss": session.last_train.loss,
                "weights": weights,
                "gradients": {n: int(digester.of([p.grad])) for n, p in model.named_parameters() if p.grad is not None},
            }
        )
    training.close()
    (folder,) = (path.parent for path in root.glob(f"*/{FILE_NAME}"))
    found = read_fingerprints(folder)
    assert [
        {
            "step": f.step, "rows": f.rows, "inputs": f.inputs, "targets": f.targets, "loss": f.loss,
            "weights": dict(zip(f.weight_names, f.weights.tolist(), strict=True)),
            "gradients": dict(zip(f.gradient_names, f.gradients.tolist(), strict=True)),
        }
        for f in found
    ] == expected  # fmt: skip
    assert len({f.seed for f in found}) == len({f.random for f in found}) == 5


def test_only_every_so_many_th_step(root: Path, asked: pytest.MonkeyPatch) -> None:
    asked.setenv(VARIABLE, "3")
    training = launch(toy_experiment(), root_directory=root)
    while training.trainer.session.step < 8:
        training.trainer.tick()
    training.close()
    (folder,) = (path.parent for path in root.glob(f"*/{FILE_NAME}"))
    assert [f.step for f in read_fingerprints(folder)] == [0, 3, 6]


def test_a_step_that_fails_has_none(root: Path, asked: Any, opened: Any) -> None:
    made = opened()
    session = made.session
    session.train_one_step()
    session.experiment.model.hurt = True
    with pytest.raises(NonFiniteLoss):
        session.train_one_step()
    session.experiment.model.hurt = False
    session.train_one_step()
    folder = made.stores.run.path
    assert [f.step for f in read_fingerprints(folder)] == [0, 1]


def test_a_wrong_variable_is_said_when_a_run_begins(root: Path, asked: pytest.MonkeyPatch) -> None:
    asked.setenv(VARIABLE, "often")
    with pytest.raises(Invalid, match="GRAYBOX_FINGERPRINTS is 'often'"):
        launch(toy_experiment(), root_directory=root)
    asked.setenv(VARIABLE, "1")
    launch(toy_experiment(), root_directory=root).close()


class Odd(nn.Module):
    """A weight that gets no gradient, a sparse gradient, an odd number of half precision numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3, sparse=True)
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float16))
        self.last = nn.Linear(3, 2)


def test_gradients_of_all_kinds(root: Path) -> None:
    model = Odd()
    log = FingerprintLog(root)
    fingerprints = StepFingerprints(model, log)
    for step in range(2):
        rows = torch.tensor([step, 4])
        fingerprints.begin(step, 1, rows, {"words": rows}, (rows, "text"))
        hidden = checkpoint(model.table, rows, use_reentrant=False)
        model.last(hidden).sum().backward()
        fingerprints.learnt(0.5)
        fingerprints.commit()
    log.close()
    first, second = read_fingerprints(root)
    assert first.weight_names == ("unused", "table.weight", "last.weight", "last.bias")
    assert first.gradient_names == ("table.weight", "last.weight", "last.bias")
    assert first.weights.tolist() == second.weights.tolist()
    assert (first.gradients != second.gradients).all()
    assert model.unused.grad is None and model.table.weight.grad is not None and model.table.weight.grad.is_sparse


def test_the_random_state_follows_each_generator() -> None:
    def draws() -> list[int]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        found = [random_state()]
        for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
            draw()
            found.append(random_state())
        return found

    first = draws()
    assert len(set(first)) == 4 and first == draws()
    before = bits(torch.get_rng_state())
    random_state()
    assert bits(torch.get_rng_state()) == before
