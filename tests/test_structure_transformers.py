"""Hugging Face's networks with random weights: whole heads and hidden neurons go exactly; what cannot go is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from graybox.errors import Refused
from graybox.neuron_ops import AddNeurons, Freeze, Reinitialize, RemoveNeurons
from graybox.operable_network import operable
from tests.small_networks import one_thread  # noqa: F401

os.environ["HF_HUB_OFFLINE"] = "1"

WORDS = 50


def bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=WORDS, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    ids = torch.randint(0, WORDS, (2, 7))
    return BertForSequenceClassification(config), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def gpt2() -> tuple[Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=WORDS, n_embd=24, n_layer=2, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), {"input_ids": torch.randint(0, WORDS, (2, 7)), "use_cache": False}


def vit() -> tuple[Any, Any]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    return ViTForImageClassification(config), torch.randn(2, 3, 16, 16)


def logits(network: Any, given: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = (network(**given) if isinstance(given, dict) else network(given)).logits
    return found


def hidden_layer(network: Any) -> str:
    """The first layer of the first block's hidden neurons."""
    ends = ("intermediate.dense", "mlp.fc1", "mlp.c_fc")
    return next(name for name, _ in network.named_layers() if name.endswith(ends))


@pytest.mark.parametrize("make", [bert, gpt2, vit])
def test_hidden_neurons_go_and_come_exactly(make: Callable[[], tuple[Any, Any]]) -> None:
    torch.manual_seed(0)
    model, given = make()
    network = operable(model.double().eval(), _double(given))
    given = _double(given)
    name = hidden_layer(network)
    before = logits(network, given)
    surgeon = network.surgeon()

    surgeon.apply(surgeon.plan(AddNeurons(name, count=3)), seed=1)
    assert float((logits(network, given) - before).abs().max()) <= 1e-9 * float(before.abs().max())

    # The masked network is the oracle: what consumes the neurons sees zero instead of them.
    reader = dict(network.named_modules())[network.structure.reading(name).reader]
    gone = (0, 5, 21)
    mask = torch.ones(network.find_layer(name)[1].neuron_count, dtype=torch.float64)
    mask[list(gone)] = 0.0
    handle = reader.register_forward_pre_hook(lambda _, args: (args[0] * mask, *args[1:]))
    masked = logits(network, given)
    handle.remove()
    plan = surgeon.plan(RemoveNeurons(name, gone))
    applied = surgeon.apply(plan, seed=2)
    after = logits(network, given)
    assert float((after - masked).abs().max()) <= 1e-9 * float(before.abs().max())
    assert float((masked - before).abs().max()) >= 1e-7 * float(before.abs().max())
    surgeon.undo(applied.undo, applied.arrays)
    assert float((logits(network, given) - before).abs().max()) <= 1e-9 * float(before.abs().max())

    for edit in (Freeze(name, (1,)), Reinitialize(name, (2,), zero_outgoing=True)):
        surgeon.apply(surgeon.plan(edit), seed=3)
    logits(network, given)


@pytest.mark.parametrize(("make", "layer"), [(bert, "attention.self.query"), (vit, "attention.q_proj")])
def test_a_whole_head_goes_exactly(make: Callable[[], tuple[Any, Any]], layer: str) -> None:
    torch.manual_seed(0)
    model, given = make()
    given = _double(given)
    network = operable(model.double().eval(), given)
    name = next(name for name, _ in network.named_layers() if name.endswith(layer))
    surgeon = network.surgeon()
    with pytest.raises(Refused, match="whole group or head") as refused:
        surgeon.plan(RemoveNeurons(name, (1,)))
    assert refused.value.details["together"] == [0, 1, 2, 3, 4, 5]

    plan = surgeon.plan(RemoveNeurons(name, tuple(refused.value.details["together"])))
    out = next(
        region.tensor.removesuffix(".weight")
        for coupled in plan.coupled
        for region in network.structure.outgoing(coupled, [0]).regions
    )
    mask = torch.ones(24, dtype=torch.float64)
    mask[:6] = 0.0
    handle = network.get_submodule(out).register_forward_pre_hook(lambda _, args: (args[0] * mask,))
    masked, whole = logits(network, given), float(logits(network, given).abs().max())
    handle.remove()
    surgeon.apply(plan, seed=0)
    assert float((logits(network, given) - masked).abs().max()) <= 1e-9 * whole


def test_what_a_layer_normalisation_mixes_is_said() -> None:
    model, given = vit()
    network = operable(model, given)
    with pytest.raises(Refused, match="layer normalisation runs over them"):
        network.surgeon().plan(RemoveNeurons("vit.embeddings.patch_embeddings.projection", (3,)))


def test_heads_whose_number_stands_in_the_code_are_refused() -> None:
    model, given = gpt2()
    network = operable(model, given)
    with pytest.raises(Refused, match="number in its code"):
        network.surgeon().plan(RemoveNeurons("transformer.h.0.attn.c_attn", (0,)))


def _double(given: Any) -> Any:
    return given.double() if isinstance(given, torch.Tensor) else given
