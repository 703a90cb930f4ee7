"""Networks under torch.compile: one recompilation for each edit of structure, and never the recompile limit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import optim

from graybox.neuron_ops import AddNeurons, Freeze, RemoveNeurons
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.surgery import Surgeon
from tests.small_networks import one_thread  # noqa: F401
from tests.surgery_cases import Desk

# Statistics are counted outside of what is compiled, where torch looks at gradients that nobody asked for.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


class Compilations:
    """A backend that counts how often it is asked, and runs the graph as it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Any:
        self.count += 1
        return graph.forward


@pytest.fixture
def fresh() -> Iterator[Compilations]:
    torch.compiler.reset()
    yield Compilations()
    torch.compiler.reset()


@pytest.mark.parametrize("whole_step", [False, True])
def test_each_edit_of_structure_is_one_recompilation(fresh: Compilations, whole_step: bool) -> None:
    desk = Desk("Mlp", steps=0, dtype=torch.float32)
    limit = torch._dynamo.config.recompile_limit

    def loss(x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = (desk.plain if whole_step else network)(x).square().mean()
        return answer

    # The network alone, or as part of a function of the user's.
    network = torch.compile(desk.plain, backend=fresh, fullgraph=False)
    step: Any = torch.compile(loss, backend=fresh) if whole_step else loss
    step(desk.x).backward()
    step(desk.x)
    per_compilation = fresh.count
    assert per_compilation >= 1
    for number in range(limit + 4):
        desk.do(AddNeurons("fc1", count=1) if number % 2 else RemoveNeurons("fc1", (0,)), number)
        desk.optimizer.zero_grad()
        for _ in range(3):
            step(desk.x).backward()
        assert fresh.count == per_compilation * (number + 2), f"edit {number}"
        eager = desk.plain(desk.x).square().mean()
        assert torch.equal(step(desk.x), eager)
        desk.optimizer.step()


def test_other_edits_recompile_nothing(fresh: Compilations) -> None:
    desk = Desk("Mlp", steps=0, dtype=torch.float32)
    compiled: Any = torch.compile(desk.plain, backend=fresh)
    compiled(desk.x)
    count = fresh.count
    desk.do(Freeze("fc1", (1,)))
    desk.surgeon.preview(desk.surgeon.plan(RemoveNeurons("fc1", (0,))), desk.x)
    compiled(desk.x)
    assert fresh.count == count


def test_an_operable_compiled_network(fresh: Compilations) -> None:
    from graybox.operable_network import operable

    plain = Desk("Mlp", steps=0, dtype=torch.float32)
    network = operable(torch.compile(plain.plain, backend=fresh), plain.x)
    surgeon = Surgeon(network, OptimizerWithOps(optim.SGD(network.parameters(), 0.1), network))
    network(plain.x)
    count = fresh.count
    surgeon.apply(surgeon.plan(RemoveNeurons("fc1", (0,))), 1)
    for _ in range(2):
        network(plain.x)
    assert fresh.count == 2 * count >= 2


def test_nothing_is_loaded_to_forget_what_was_never_compiled() -> None:
    code = (
        "import sys, graybox.compiled; graybox.compiled.forget_compiled(); graybox.compiled.eagerly();"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
