"""What samples are scored by while an experiment trains, against a plain loop that writes everything down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from tests.small_experiments import Opened, toy_data

Make = Callable[..., Opened]


class Silent(Dataset[Any]):
    """Does not tell its labels beforehand."""

    def __init__(self, data: TensorDataset) -> None:
        self.inner = data

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


@pytest.mark.parametrize("silent", [False, True])
def test_scores_follow_what_the_network_answers(opened: Make, silent: bool) -> None:
    data = toy_data()
    session = opened(train_dataset=Silent(data) if silent else data, learning_rate=0.05).session
    answers: list[torch.Tensor] = []
    session.network.register_forward_hook(lambda _m, _i, out: answers.append(out.detach().double()))
    seen: dict[int, list[tuple[float, float, float, bool, int]]] = {row: [] for row in range(50)}
    for _ in range(40):
        outcome = session.train_one_step()
        logits, targets = answers.pop(), data.tensors[1][outcome.rows]
        answers.clear()
        for place, row in enumerate(outcome.rows.tolist()):
            own, true = logits[place], int(targets[place])
            others = torch.cat((own[:true], own[true + 1 :]))
            probability = float(own.softmax(0)[true])
            margin = float(own[true] - others.max())
            seen[row].append((-np.log(probability), probability, margin, int(own.argmax()) == true, session.age))
    columns = session.stores.samples.splits["train"]
    assert columns.label.tolist() == data.tensors[1].tolist()
    for row, history in seen.items():
        losses, probabilities, margins, right, ages = (np.array(part) for part in zip(*history, strict=True))
        expected = {
            "loss": losses[-1], "loss_mean": losses.mean(), "loss_std": losses.std(),
            "confidence": probabilities[-1], "confidence_mean": probabilities.mean(),
            "confidence_std": probabilities.std(), "margin": margins[-1], "aum": margins.mean(),
            "forgetting": np.count_nonzero(right[:-1] & ~right[1:]),
            "first_learnt": ages[right.argmax()] if right.any() else -1,
        }  # fmt: skip
        for name, value in expected.items():
            assert float(columns.column(name)[row]) == pytest.approx(value, rel=1e-3, abs=1e-4), (row, name)
        numbers, kept = columns.losses_of(row)
        np.testing.assert_allclose(kept, losses[numbers], rtol=1e-4, atol=1e-6)


def test_an_evaluation_scores_its_samples_too(opened: Make) -> None:
    session = opened(full_eval_frequency=2).session
    for _ in range(4):
        session.train_one_step()
        while session.evaluation_due():
            session.advance_evaluation()
    columns = session.stores.samples.splits["val"]
    assert set(columns.encounters.tolist()) == {2}
    assert np.isfinite(columns.column("aum")).all() and np.isfinite(columns.column("loss_std")).all()
