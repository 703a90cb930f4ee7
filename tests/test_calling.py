"""Networks of several inputs and answers that are no plain tensor train like any other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.utils.data import Dataset

from graybox.calling import arguments_of, called, input_and_target, logits_of
from graybox.commands import EditNeurons, ReadActivations
from graybox.errors import Invalid
from graybox.experiment import Experiment
from graybox.neuron_ops import RemoveNeurons
from graybox.operable_network import operable

os.environ["HF_HUB_OFFLINE"] = "1"
WORDS = 30


class Two(nn.Module):
    """A picture and a number of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(2, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        answer: torch.Tensor = self.out(torch.relu(self.left(left) + scale * self.right(right)))
        return answer


class Items(Dataset[Any]):
    """Samples as a function makes them."""

    def __init__(self, make: Callable[[int], Any], count: int = 40) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def number(index: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(index))


def words(index: int) -> torch.Tensor:
    return torch.randint(0, WORDS, (7,), generator=torch.Generator().manual_seed(index))


def pair(index: int) -> Any:
    return (number(index, 6), number(index, 2)), index % 3


def named(index: int) -> Any:
    return {"left": number(index, 6), "right": number(index, 2)}, index % 3


def flat(index: int) -> Any:
    return {"left": number(index, 6), "right": number(index, 2), "labels": index % 3}


def started(root: Path, model: nn.Module, make: Callable[[int], Any]) -> Experiment:
    return Experiment(
        model=model, optimizer_class=optim.Adam, train_dataset=Items(make), eval_dataset=Items(make, 9), device="cpu",
        learning_rate=1e-2, batch_size=8, training_steps_to_do=50, root_log_dir=root, seed=1,
    )  # fmt: skip


@pytest.mark.parametrize("make", [pair, named, flat])
def test_a_network_of_two_inputs_trains_as_a_plain_loop_does(root: Path, make: Callable[[int], Any]) -> None:
    torch.manual_seed(0)
    model = Two()
    twin = Two()
    twin.load_state_dict(model.state_dict())
    experiment = started(root, model, make)
    experiment.loop()  # which looks once at what the network answers
    seen: list[torch.Tensor] = []
    experiment.model.get_submodule("left").register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    experiment.train_n_steps(1)
    everything = torch.stack([number(i, 6) for i in range(40)])
    rows = [int((everything == row).all(1).nonzero()) for row in seen[0]]
    optimizer = optim.Adam(twin.parameters(), lr=1e-2)
    answer = twin(everything[rows], torch.stack([number(i, 2) for i in rows]))
    nn.functional.cross_entropy(answer, torch.tensor([i % 3 for i in rows])).backward()
    optimizer.step()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(experiment.model.state_dict()[name], value)
    experiment.train_n_steps(4)
    experiment.eval_full()
    tracker = experiment.model.find_layer("left")[1].train_dataset_tracker
    assert tracker.get_neuron_age(0) == 40
    done = experiment.loop().command(EditNeurons(RemoveNeurons("left", (1,))))
    assert done.message.startswith("Removed neuron 1 of left")
    experiment.loop().command(EditNeurons(RemoveNeurons("left", (2,)), dry_run=True, measure=True))
    assert experiment.loop().command(ReadActivations("out", "train", "3")).value.shape == (3,)
    experiment.train_n_steps(2)
    experiment.close()


@pytest.mark.parametrize("labels_inside", [True, False])
def test_a_transformer_of_hugging_face_trains_and_is_pruned(root: Path, labels_inside: bool) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    def make(index: int) -> Any:
        given = {"input_ids": words(index), "attention_mask": torch.ones(7, dtype=torch.long)}
        return {**given, "labels": index % 3} if labels_inside else (given, index % 3)

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=20,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    experiment = started(root, BertForSequenceClassification(config), make)
    experiment.train_n_steps(3)
    loss, percent = experiment.eval_full()
    assert 0 < loss < 10 and percent is not None
    layer = next(name for name, _ in experiment.model.named_layers() if name.endswith("intermediate.dense"))
    experiment.loop().command(EditNeurons(RemoveNeurons(layer, (0, 4))))
    experiment.train_n_steps(3)
    assert experiment.model.find_layer(layer)[1].neuron_count == 18
    assert experiment.model.find_layer(layer)[1].train_dataset_tracker.get_neuron_age(0) == 48
    experiment.close()


class Whole(nn.Module):
    """Takes what comes as it is."""

    def forward(self, batch: Any) -> Any:
        return batch


def test_what_a_network_is_called_with() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    two = Two()
    assert arguments_of(two, {"left": a, "right": b}) == {"left": a, "right": b}
    assert arguments_of(two, {"left": a, "wrong": b}) == ({"left": a, "wrong": b},)
    assert arguments_of(two, [a, b]) == (a, b)
    assert arguments_of(two, (a, b, 2.0)) == (a, b, 2.0)
    assert arguments_of(two, (a, b, 2.0, 3.0)) == ((a, b, 2.0, 3.0),)
    assert arguments_of(two, a) == (a,)
    whole = Whole()
    for inputs in (a, [a, b], (a, b), {"left": a}, {"batch": a, "other": b}):
        assert arguments_of(whole, inputs) == (inputs,)
        assert called(whole, inputs) is inputs
    assert arguments_of(torch.compile(Two(), backend="eager"), {"left": a, "right": b}) == {"left": a, "right": b}
    x = (torch.randn(1, 6), torch.randn(1, 2))
    assert arguments_of(operable(Two(), x), list(x)) == x


def test_which_tensor_of_an_answer_counts() -> None:
    tensor = torch.zeros(2, 3)
    for answer in (tensor, {"out": tensor, "aux": 1}, {"logits": tensor}, SimpleNamespace(logits=tensor)):
        assert logits_of(answer) is tensor
    for wrong in ((tensor, tensor), {"a": tensor}, None):
        with pytest.raises(Invalid, match="pass a task="):
            logits_of(wrong)


def test_the_halves_of_a_batch() -> None:
    assert input_and_target((1, 2, 3)) == (1, 2)
    assert input_and_target({"x": 1, "label": 2}) == ({"x": 1}, 2)
    for neither in (5, (1,), {"labels": 1}, {"x": 1, "y": 2}):
        assert input_and_target(neither) is None
