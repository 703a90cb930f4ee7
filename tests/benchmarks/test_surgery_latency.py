"""The script that times surgery: that it runs, counts traces, and measures memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import surgery_latency
from benchmarks.fresh_bytes import FreshBytes
from tests.small_networks import one_thread  # noqa: F401


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


def test_it_prints_all_that_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    surgery_latency.run(network, torch.randn(2, 3, 8, 8), {"first": "0", "second": "3"}, rounds=2)
    told = capsys.readouterr().out
    for words in ("operable", "first: 0", "second: 3", "first prune: plan", "add: apply", "memory of prune"):
        assert words in told
    # One trial for the first prune and the first add of each group, and no trace after any edit.
    assert "16 edits, 0 traces after them, 4 trials of an edited network" in told


def test_traces_are_counted() -> None:
    trained = surgery_latency.Trained(network(), torch.randn(2, 3, 8, 8))
    with surgery_latency.counted_traces() as traces:
        trained.network.structure.refresh()
    assert traces == ["trace"]


def test_the_peak_counts_what_is_there_at_once() -> None:
    old = torch.zeros(1000)
    with FreshBytes() as fresh:
        for _ in range(5):
            made = old + 1  # the one before is still there while it is made
        made.add_(1)
        made.view(10, 100)
    assert 4000 <= fresh.peak <= 8000
