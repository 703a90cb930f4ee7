"""The Dash logger: what is wrong is said to who logs it, and what is logged arrives on the plots."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graybox.dash import MAX_WAITING, Dash
from graybox.errors import Invalid
from graybox.launch import launch
from tests.small_experiments import toy_experiment


def test_what_is_logged_is_taken_once_in_order(tmp_path: Path) -> None:
    logger = Dash(tmp_path)
    assert logger.root_directory == tmp_path and logger.take() == []
    logger.add_scalars("norm", {"train": 0.5, "val": torch.tensor(2.0)}, global_step=np.int64(7))
    logger.add_scalars("norm", {"train": math.nan})
    taken = logger.take()
    assert taken[0] == ("norm", {"train": 0.5, "val": 2.0}, 7)
    assert taken[1][2] is None and math.isnan(taken[1][1]["train"])
    assert logger.take() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("loss", {"train": "much"}), "cannot log 'much' as loss/train: it is not a number"),
        (("loss", {"train": torch.zeros(2)}), "cannot log tensor.* as loss/train"),
        (("loss", {"train": None}), "not a number"),
        (("loss", {"train": 10**400}), "not a number"),
        (("", {"train": 1.0}), "name of a plot"),
        (("x" * 201, {"train": 1.0}), "name of a plot"),
        (("loss", {"": 1.0}), "name of a curve"),
        (("loss", {"train": 1.0}, -1), "global_step is a whole number of at least 0"),
        (("loss", {"train": 1.0}, 1.5), "global_step"),
        (("loss", {"train": 1.0}, 2**63), "global_step"),
        (("loss", {"train": 1.0}, True), "global_step"),
    ],
)
def test_what_is_wrong_is_said_at_once(tmp_path: Path, arguments: Any, message: str) -> None:
    logger = Dash(tmp_path)
    with pytest.raises(Invalid, match=message):
        logger.add_scalars(*arguments)
    assert logger.take() == []


def test_any_thread_may_log_and_nothing_is_lost(tmp_path: Path) -> None:
    logger = Dash(tmp_path)
    taken: list[Any] = []

    def log(number: int) -> None:
        for step in range(500):
            logger.add_scalars("x", {str(number): step}, step)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += logger.take()
    taken += logger.take()
    for number in range(4):
        assert [age for _, values, age in taken if str(number) in values] == list(range(500))


def test_without_training_memory_is_bounded(tmp_path: Path) -> None:
    logger = Dash(tmp_path)
    for step in range(MAX_WAITING + 5):
        logger.add_scalars("x", {"y": 0.0}, step)
    taken = logger.take()
    assert (len(taken), taken[0][2]) == (MAX_WAITING, 5)


def test_it_arrives_in_the_runs_metrics(root: Path) -> None:
    logger = Dash(root)
    training = launch(toy_experiment(logger=logger), root_directory=root)
    try:
        logger.add_scalars("gradient norm", {"train": 0.25}, global_step=5)
        logger.add_scalars("gradient norm", {"train": 0.5})
        training.trainer.tick()
        points = training.stores.metrics.read(full=True, metric="gradient norm").points
        assert points.age.tolist() == [5, 8] and points.value.tolist() == [0.25, 0.5]
        assert points.split.tolist() == ["train", "train"]
        assert training.trainer.latest().error == ""
    finally:
        training.close()
