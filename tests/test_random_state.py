from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graybox.random_state import random_state, set_random_state
from graybox.randomness import seed_everything
from tests.precision_cases import DEVICES


def drawn(device: str) -> list[Any]:
    return [
        random.random(), random.gauss(0, 1), np.random.rand(2).tolist(), np.random.standard_normal(),
        torch.rand(2).tolist(), torch.rand(2, device=device).tolist(),
    ]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_is_drawn_comes_again(device: str, before: int, tmp_path: Path) -> None:
    """From a file, too; normal numbers come in pairs, of which one may wait."""
    seed_everything(5)
    torch.zeros(1, device=device)
    for _ in range(before):
        random.gauss(0, 1)
        np.random.standard_normal()
    torch.save(random_state(), tmp_path / "x")
    expected = [drawn(device) for _ in range(2)]
    assert drawn(device) not in expected
    for _ in range(2):
        set_random_state(torch.load(tmp_path / "x", weights_only=True))
        assert [drawn(device) for _ in range(2)] == expected


def test_a_state_that_another_version_kept_otherwise_is_left_out() -> None:
    seed_everything(5)
    state = random_state()
    expected = drawn("cpu")
    other = {**state, "python": {**state["python"], "version": 99}, "numpy": {**state["numpy"], "kind": "Other"}}
    set_random_state(other)
    found = drawn("cpu")
    assert found[4:] == expected[4:] and found[:4] != expected[:4]
