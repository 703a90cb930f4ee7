from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from graybox.errors import Invalid, Refused, StorageError
from graybox.exported_program import TOLERANCE, export_program, units_apart
from graybox.model_with_ops import NetworkWithOps
from graybox.plain_network import called_with, same_answers, without_fast_path
from tests.edited_networks import edit_at_random, edited, watched
from tests.small_experiments import DropNet
from tests.small_networks import (
    ChainNet,
    ResidualNet,
    bits,
    built,
    one_thread,  # noqa: F401
)
from tests.topologies import TOPOLOGIES

# torch.export takes a second for each, so that only a few are tried with every change.
QUICK = {"Residual", "Depthwise", "Transformer", "TiedEmbedding", "Outputs", "Squeezed"}
NOT_EXPORTED = {"Autoencoder"}
"""It has a module called `code`, which is also what torch's own program calls its text."""
NETWORKS = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TOPOLOGIES if n not in NOT_EXPORTED]


ROUNDS_OTHERWISE = {"MultiheadAttention": 4, "Transformer": 4, "TransformerNormFirst": 4, "Tokens": 4}
"""torch exports its own attention, and linear layers of transposed inputs, as other operators than it runs: so many
units in the last place are allowed."""


def runs_alike(network: nn.Module, path: Path, examples: list[Any], units: float = 0) -> None:
    """What the file does is what the network does, bit for bit, or to so many units in the last place."""
    program = torch.export.load(path).module()
    for example in examples:
        with torch.no_grad(), without_fast_path():
            found, expected = called_with(program, example), called_with(network, example)
        if units:
            assert units_apart(expected, found) <= units
        else:
            assert same_answers(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_small_network_after_edits(name: str, tmp_path: Path) -> None:
    desk = edited(name)
    report = export_program(desk.network, None, tmp_path / "net.pt2")
    units = ROUNDS_OTHERWISE.get(name, 0)
    assert report.dynamic_batch and report.difference <= units and report.batch == len(desk.x)
    other = type(desk.plain).example(5)
    runs_alike(desk.network, tmp_path / "net.pt2", [desk.x, other.to(desk.x.dtype), desk.x[:1]], units)


def test_a_network_that_torch_cannot_run_from_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"torch cannot run Autoencoder from a file: .*; save its weights instead"):
        export_program(edited("Autoencoder").network, None, tmp_path / "net.pt2")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [ChainNet, ResidualNet])
def test_a_network_that_speaks_to_graybox_itself(kind: type[NetworkWithOps], tmp_path: Path) -> None:
    network = built(kind)
    edit_at_random(network.surgeon(), [name for name, _ in network.named_layers()], seed=2)
    x = kind.example(4)  # type: ignore[attr-defined]
    report = export_program(network, x, tmp_path / "net.pt2")
    assert report.dynamic_batch and report.difference == 0
    assert network.training and network.get_age() == 0
    runs_alike(network.eval(), tmp_path / "net.pt2", [x, x[:1]])


def test_a_network_that_looks_at_its_mode_is_exported_as_it_evaluates(tmp_path: Path) -> None:
    network = DropNet()
    before = {name: bits(value) for name, value in network.state_dict().items()}
    x = torch.randn(3, 1, 4, 4)
    export_program(network, x, tmp_path / "net.pt2")
    assert {name: bits(value) for name, value in network.state_dict().items()} == before and network.training
    runs_alike(network.eval(), tmp_path / "net.pt2", [x])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_networks_of_torchvision(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    network = watched(getattr(torchvision.models, name)(num_classes=5), x)
    report = export_program(network, x, tmp_path / "net.pt2")
    assert report.dynamic_batch and report.difference == 0
    runs_alike(network, tmp_path / "net.pt2", [x, torch.randn(5, 3, 32, 32)])


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return {"logits": self.one(left) + scale * self.other(right)}


@pytest.mark.parametrize("named", [False, True])
def test_several_inputs_and_an_answer_in_a_dict(named: bool, tmp_path: Path) -> None:
    def example(batch: int) -> Any:
        inputs = torch.randn(batch, 3), torch.randn(batch, 4)
        return dict(zip(("left", "right"), inputs, strict=True)) if named else inputs

    network = TwoInputs().eval()
    report = export_program(network, example(2), tmp_path / "net.pt2")
    assert report.dynamic_batch
    runs_alike(network, tmp_path / "net.pt2", [example(2), example(7)])


class OneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x).view(4, 2)


def test_where_the_code_says_the_batch_size_the_program_has_it(tmp_path: Path) -> None:
    report = export_program(OneSize(), torch.randn(4, 3), tmp_path / "net.pt2")
    assert not report.dynamic_batch and report.batch == 4


def test_no_path_of_whoever_exports_is_in_the_file(tmp_path: Path) -> None:
    export_program(built(ResidualNet), ResidualNet.example(2), tmp_path / "net.pt2")
    assert b"small_networks.py" not in (tmp_path / "net.pt2").read_bytes()


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x) if float(x.sum()) > 0 else self.only(-x)


class Counts(nn.Module):
    """Answers something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.only, self.calls = nn.Linear(3, 2), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.only(x) * self.calls


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Decides(), r"torch\.export cannot follow Decides: \w+"),
        (Counts(), r"answers differ by .* units in the last place|torch\.export cannot follow Counts"),
    ],
)
def test_what_cannot_be_a_program_is_refused_and_an_old_file_stays(
    network: nn.Module, message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.pt2").write_text("old")
    with pytest.raises(Refused, match=message):
        export_program(network, torch.randn(2, 3), tmp_path / "net.pt2")
    assert os.listdir(tmp_path) == ["net.pt2"] and (tmp_path / "net.pt2").read_text() == "old"


def test_a_wrong_call_is_answered_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"torch's programs are called NAME.pt2, not 'net.pt'"):
        export_program(nn.Linear(3, 2), torch.ones(1, 3), tmp_path / "net.pt")
    with pytest.raises(Invalid, match="give an example of its input"):
        export_program(nn.Linear(3, 2), None, tmp_path / "net.pt2")
    with pytest.raises(StorageError, match="cannot write"):
        export_program(nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "missing" / "net.pt2")
    assert os.listdir(tmp_path) == []


def test_how_far_two_answers_are_apart() -> None:
    one = torch.tensor([1.0, 2.0, float("nan"), float("inf")])
    assert units_apart(one, one.clone()) == 0
    eps = torch.finfo(torch.float32).eps
    assert units_apart(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.5 + 3 * eps])) == pytest.approx(3)
    assert units_apart(one, torch.tensor([1.0, 2.0, 0.0, float("inf")])) == float("inf")
    assert units_apart(torch.tensor([1, 2]), torch.tensor([1, 3])) == float("inf")
    assert units_apart(torch.zeros(2), torch.ones(2)) == float("inf")
    assert TOLERANCE < 100
