"""The script that judges surgery on torchvision's networks: its oracle, its verdicts, its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import judge, surgery_coverage
from benchmarks.oracle import Oracle
from benchmarks.peers import at_most
from benchmarks.zoo import Subject, calibrate, difference, logits, spread
from graybox.structure import Structure
from tests.small_networks import one_thread  # noqa: F401


class Small(nn.Module):
    """A stem, two residual blocks with a depthwise convolution, squeeze and excitation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = x + block(x)
        answer: torch.Tensor = self.head(x.mean((2, 3)))
        return answer


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(6, 8, 1, bias=False)
        self.wide_norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.deep_norm = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.narrow = nn.Conv2d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.wide_norm(self.wide(x)))
        x = nn.functional.relu(self.deep_norm(self.deep(x)))
        scale = torch.sigmoid(self.excite(nn.functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        answer: torch.Tensor = self.narrow(scale * x)
        return answer


def small(seed: int = 3) -> Subject:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = Small().double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(0.1, 0.4)
        calibrate(network, [torch.randn(8, 3, 6, 6, dtype=torch.float64) for _ in range(2)])
        return Subject("small", network.eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64))


def test_the_oracle_finds_what_goes_together() -> None:
    subject = small()
    oracle = Oracle(subject.network, subject.images)
    inside = oracle.together({"blocks.0.wide.weight": {3}})
    assert inside.neurons == {f"blocks.0.{name}.weight": {3} for name in ("wide", "deep", "excite")}
    assert inside.columns == {f"blocks.0.{name}.weight": {3} for name in ("squeeze", "narrow")}
    stream = oracle.together({"stem.weight": {2}})
    assert stream.neurons == {name: {2} for name in ("stem.weight", "blocks.0.narrow.weight", "blocks.1.narrow.weight")}
    assert stream.columns == {name: {2} for name in ("blocks.0.wide.weight", "blocks.1.wide.weight", "head.weight")}
    assert oracle.consumed({"blocks.0.wide.weight": {3}}) == {"blocks.0.deep.weight": {3}}


def test_the_mask_is_what_hooks_on_the_inputs_make_of_it() -> None:
    subject = small()
    oracle = Oracle(subject.network, subject.images)
    gone = oracle.together({"blocks.0.wide.weight": {3}})
    masked = oracle.masked(gone)
    for name in ("squeeze", "narrow"):
        module = subject.network.get_submodule(f"blocks.0.{name}")
        module.register_forward_pre_hook(lambda _, given: (given[0].index_fill(1, torch.tensor([3]), 0),))
    assert difference(logits(subject.network, subject.images), masked) < 1e-12
    assert difference(masked, oracle.logits) > 1e-7
    assert torch.equal(Oracle(small().network, subject.images).logits, oracle.logits)


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    return surgery_coverage.examined(small())


def test_all_edits_of_a_small_network_are_exact(row: dict[str, Any]) -> None:
    assert row["residual"]["layer"] == "stem"
    for name in ("median", "residual"):
        answers = {edit: row[name][edit] for edit in surgery_coverage.EDITS}
        assert {surgery_coverage.verdict(answer) for edit, answer in answers.items() if edit != "silence"} == {"exact"}
    assert row["residual"]["silence"].startswith("refused: ")
    assert surgery_coverage.verdict(row["median"]["torch-pruning"]) in ("right", "wrong", "error")
    told = "\n".join([surgery_coverage.line(row), *surgery_coverage.reasons(row), *surgery_coverage.summary([row])])
    assert "1 models, 0 edits failed, 0 models not finished" in told


def test_an_edit_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = small()
    oracle = Oracle(subject.network, subject.images)
    structure = Structure.trace(subject.network, subject.images[:1])
    case = judge.case_of(oracle, structure, "blocks.0.wide")
    with torch.no_grad():
        oracle.logits[0, 0] += 1e-6
    found = judge.Judge(subject, judge_network(subject), oracle).all({"median": case})["median"]
    assert found["add"].startswith("failed: the logits are off") and found["prune"].startswith("failed: once")


def judge_network(subject: Subject) -> Any:
    from graybox import operable

    return operable(subject.network, subject.images[:1])


def test_a_run_goes_on_where_it_ended(row: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "results" / "rows.json"
    examined: list[str] = []

    def examine(name: str) -> dict[str, Any]:
        examined.append(name)
        return {"model": name, "failed": "not done after 1 s"} if name == "slow" else {**row, "model": name}

    surgery_coverage.run(["a", "slow"], kept, examine)
    surgery_coverage.run(["a", "slow", "b"], kept, examine)
    assert examined == ["a", "slow", "slow", "b"]
    assert [found["model"] for found in json.loads(kept.read_text())] == ["a", "slow", "b"]


def test_what_goes_on_for_ever_is_ended() -> None:
    with pytest.raises(TimeoutError, match="no answer after"), at_most(0.05):
        while True:
            pass
    with at_most(0.05):
        pass


def test_the_middle_one_is_tried_first() -> None:
    assert spread(64, 6)[0] == 32 and len(spread(64, 6)) == 7
    assert set(spread(2, 6)) == {0, 1}
