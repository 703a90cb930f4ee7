"""The recipe makes the network smaller while it trains, undoes what was too much, and costs next to no accuracy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graybox.commands import EditNeurons, Undo
from graybox.examples.digits import write_digits
from graybox.examples.minimise import compare, digits, get_exp, main
from graybox.examples.minimiser import Cut, Minimiser, Recipe, redundant
from graybox.examples.neuron_worth import Worth
from graybox.experiment import Experiment
from graybox.launch import launch
from graybox.neuron_health import REDUNDANT, HealthThresholds
from graybox.neuron_ops import OverrideWeights, RemoveNeurons
from graybox.neuron_statistics import copy_statistics

BRIEF = Recipe(first=20, every=4, until=1.0, share=0.3, tolerance=1.0)


def journal(root: Path) -> list[dict[str, Any]]:
    (path,) = root.glob("*/journal.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, written once."""
    return write_digits(tmp_path_factory.mktemp("scans") / "digits")


@pytest.fixture
def root(root: Path, scans: Path) -> Path:
    """A root directory that has them."""
    (root / "digits").symlink_to(scans, target_is_directory=True)
    return root


@pytest.fixture
def experiment(root: Path) -> Iterator[Experiment]:
    made = digits(root, 60, 1, "digits", places=((1, 1),))
    made.skip_loading = True
    yield made
    made.close()


def test_it_cuts_while_it_trains(experiment: Experiment, root: Path) -> None:
    told: list[Cut] = []
    minimiser = Minimiser(experiment, BRIEF, tell=told.append)
    whole = experiment.model.get_parameter_count()
    experiment.train_n_steps(40)
    session = experiment.loop().trainer.session
    assert session.step == 40, "a cut costs no step"
    cuts = minimiser.cuts
    assert told == [cut for cut in cuts if cut.kept is not None] and len(told) >= 4
    sizes = [whole, *(cut.parameters for cut in cuts)]
    assert all(before > after for before, after in itertools.pairwise(sizes))
    assert sizes[-1] == experiment.model.get_parameter_count() == sum(p.numel() for p in experiment.model.parameters())
    assert sizes[-1] <= whole / 2
    assert {why for cut in cuts for _, why in cut.removed} >= {"dead", "worth least"}
    # The optimizer trains what is left, and what it knew of it was kept.
    optimizer = experiment.optimizer
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in experiment.model.parameters()
    }
    for parameter in experiment.model.parameters():
        state = optimizer.state[parameter]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape and int(state["step"]) == 40
    assert [e["kind"] for e in journal(root)] == ["neuron_edit"] * len(cuts)


def test_what_was_too_much_is_undone(experiment: Experiment, root: Path) -> None:
    # No accuracy is good enough, so that every cut is undone until it gives up.
    recipe = Recipe(first=4, every=2, until=1.0, share=0.3, tolerance=-1.0, give_up=3)
    whole = experiment.model.get_parameter_count()
    minimiser = Minimiser(experiment, recipe)
    experiment.train_n_steps(18)
    assert [cut.kept for cut in minimiser.cuts] == [False] * 3
    assert experiment.model.get_parameter_count() == whole
    assert [e["kind"] for e in journal(root)] == ["neuron_edit", "undo"] * 3


def test_a_persons_later_edit_stays(experiment: Experiment) -> None:
    minimiser = Minimiser(experiment, Recipe(first=4, every=4, until=1.0, tolerance=-1.0))
    experiment.train_n_steps(6)
    loop = experiment.loop()
    left = minimiser.cuts[0].parameters
    loop.command(EditNeurons(RemoveNeurons("layer2", (0,))))
    experiment.train_n_steps(2)
    assert minimiser.cuts[0].kept is True
    assert experiment.model.get_parameter_count() < left
    loop.command(Undo())


def test_of_two_that_do_the_same_the_one_that_less_depends_on_goes(experiment: Experiment) -> None:
    experiment.train_n_steps(25)
    loop, model = experiment.loop(), experiment.model
    weight, consumer = model.tensor("layer2.weight").detach(), model.tensor("fc1.weight").detach()
    loop.command(EditNeurons(OverrideWeights("layer2", (9,), weight[4:5].numpy())))
    quieter = consumer.numpy().copy()
    quieter[:, 4 * 16 : 5 * 16] *= 0.1
    loop.command(EditNeurons(OverrideWeights("fc1", tuple(range(len(quieter))), quieter)))
    # A cut would take fc1's dead ones first; the redundant ones are asked for alone.
    known = copy_statistics(model, 25, HealthThresholds(), fresh=True)
    (layer2,) = (layer for layer in known.layers.values() if layer.info.name == "layer2")
    assert layer2.health[9] == REDUNDANT and int(layer2.redundant_with[9]) == 4
    assert redundant(layer2, Worth(model).outgoing_norms()["layer2"]) == [4]


def test_worth_is_the_gradient_of_a_gate(root: Path) -> None:
    """The oracle: a gate of one on what each neuron hands on, and autograd."""
    torch.manual_seed(0)
    experiment = digits(root, 10, 1, "digits", places=((1, 1),))
    model = experiment.model.eval().double()
    model.example_input = model.example_input.double()
    images, labels = torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8)
    worth = Worth(model)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    worth.watch()
    consumers = {"layer1": ("layer2", 1), "layer2": ("fc1", 16), "fc1": ("fc2", 1)}
    modules = dict(model.named_modules())
    gates: dict[str, torch.Tensor] = {}
    for name, (consumer, positions) in consumers.items():
        count = modules[name].neuron_count
        gate = gates[name] = torch.ones(count, dtype=torch.float64, requires_grad=True)

        def through(_: Any, args: tuple[torch.Tensor], gate: torch.Tensor = gate, each: int = positions) -> Any:
            wide = gate.repeat_interleave(each)
            return (args[0] * (wide[None, :, None, None] if args[0].dim() == 4 else wide), *args[1:])

        modules[consumer].register_forward_pre_hook(through)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    scores = worth.scores()
    assert set(scores) == set(gates)
    for name, gate in gates.items():
        assert gate.grad is not None
        np.testing.assert_allclose(scores[name], gate.grad.square().numpy(), rtol=1e-9, atol=1e-18)


def test_the_backend_takes_it(root: Path) -> None:
    experiment = get_exp(root)
    training = launch(experiment, root_directory=root)
    try:
        for _ in range(12):
            assert training.trainer.tick()
        assert training.trainer.latest().error == "" and training.trainer.latest().step > 5
    finally:
        training.close()


def test_the_command_line_prints_both_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root_directory", str(root), "--steps", "8"])
    printed = capsys.readouterr().out
    assert "step" in printed and "seconds per step" in printed and "points" in printed
    assert len(list(root.glob("*/run.json"))) == 2


@pytest.mark.slow
def test_five_times_fewer_parameters_for_half_a_point(tmp_path: Path) -> None:
    uncut, cut = compare(tmp_path, seed=1)
    assert uncut.parameters == 152_074
    assert cut.parameters * 5 <= uncut.parameters
    assert all(count >= 0.25 * uncut.neurons[layer] for layer, count in cut.neurons.items())
    assert cut.multiply_adds < uncut.multiply_adds
    assert uncut.val_accuracy > 0.97
    assert cut.val_accuracy >= uncut.val_accuracy - 0.005
    reasons = {why for one in cut.cuts if one.kept for _, why in one.removed}
    assert reasons == {"dead", "redundant", "worth least"}
