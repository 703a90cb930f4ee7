from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graybox.errors import Invalid, Refused
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import Conv2dWithNeuronOps, LinearWithNeuronOps, ModuleWithOps
from graybox.operable_network import operable
from graybox.plain_network import called_with, plain_class, plain_module, same_answers, without_fast_path
from tests.edited_networks import edit_at_random, edited, shapes, watched
from tests.small_experiments import DropNet
from tests.small_networks import (
    ChainNet,
    ResidualNet,
    SequenceNet,
    bits,
    built,
    one_thread,  # noqa: F401
)
from tests.surgery_cases import Desk
from tests.topologies import TOPOLOGIES


def check(network: nn.Module, plain: nn.Module, x: Any) -> None:
    """Plain classes, the same names with the same bits, and the same answers, in both modes."""
    assert not [n for n, m in plain.named_modules() if isinstance(m, (ModuleWithOps, NetworkWithOps))]
    assert not [n for n, m in plain.named_modules() if type(m).__module__.startswith("graybox")]
    ours, theirs = network.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert [n for n in ours if bits(ours[n]) != bits(theirs[n]) or ours[n].data_ptr() == theirs[n].data_ptr()] == []
    for training in (False, True):
        both = copy.deepcopy(network), copy.deepcopy(plain)
        answers = []
        for each in both:
            each.train(training)
            torch.manual_seed(1)
            with torch.no_grad(), without_fast_path():
                answers.append(called_with(each, x))
        assert same_answers(*answers)
        assert differing_buffers(*both) == [], "what training mode keeps is kept by both"


def differing_buffers(a: nn.Module, b: nn.Module) -> list[str]:
    there = dict(b.named_buffers())
    return [name for name, value in a.named_buffers() if bits(value) != bits(there[name])]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_small_network_after_edits(name: str) -> None:
    desk = edited(name)
    plain = plain_module(desk.network)
    check(desk.network, plain, desk.x)
    assert type(plain) is type(desk.plain) and plain is not desk.plain


def test_edits_reach_networks_at_all() -> None:
    """Or the tests above would compare what nobody edited."""
    changed = [name for name in TOPOLOGIES if shapes(edited(name).plain) != shapes(Desk(name, steps=0).plain)]
    assert len(changed) > len(TOPOLOGIES) / 2


@settings(max_examples=15)
@given(name=st.sampled_from(sorted(TOPOLOGIES)), seed=st.integers(0, 10_000), count=st.integers(1, 10))
def test_any_edits_of_any_small_network(name: str, seed: int, count: int) -> None:
    desk = edited(name, seed, count)
    check(desk.network, plain_module(desk.network), desk.x)


@pytest.mark.parametrize("kind", [ChainNet, ResidualNet, SequenceNet])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_speaks_to_graybox_itself(kind: type[NetworkWithOps], seed: int) -> None:
    network = built(kind).eval()
    x = kind.example(5)  # type: ignore[attr-defined]
    assert edit_at_random(network.surgeon(), [name for name, _ in network.named_layers()], seed)
    plain = plain_module(network)
    check(network, plain, x)
    assert "maybe_update_age" not in plain.code and "intermediary" not in plain.code
    kept = io.BytesIO()
    torch.save(plain, kept)
    kept.seek(0)
    check(network, torch.load(kept, weights_only=False), x)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (torchvision.models.resnet18, 32),
        (torchvision.models.mobilenet_v3_small, 32),
        pytest.param(torchvision.models.densenet121, 32, marks=pytest.mark.slow),
    ],
)
def test_networks_of_torchvision(make: Any, size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size)
    network = watched(make(num_classes=5), x)
    check(network, plain_module(network), x)


def test_a_layer_has_the_attributes_of_its_plain_class_and_nothing_else() -> None:
    desk = edited("Chain")
    plain: Any = plain_module(desk.network)
    conv = plain.conv1
    like = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    assert type(conv) is nn.Conv2d
    assert vars(conv).keys() == vars(like).keys()
    told = {key: value for key, value in vars(like).items() if not key.startswith("_") and key != "training"}
    assert {key: getattr(conv, key) for key in told} == told
    assert tuple(conv.weight.shape) == (conv.out_channels, conv.in_channels, 3, 3)


def test_the_copy_shares_nothing_and_the_network_keeps_its_neurons() -> None:
    desk = edited("Residual")
    before = desk.state()
    plain = plain_module(desk.network)
    with torch.no_grad():
        for value in plain.state_dict().values():
            value.zero_()
    after = desk.state()
    assert before.keys() == after.keys()
    assert (
        bits(before["model/head.weight"]) == bits(after["model/head.weight"]) != bits(plain.state_dict()["head.weight"])
    )
    assert desk.network.layers and desk.network.find_layer("stem")[1].train_dataset_tracker is not None


def test_what_learns_and_hooks_of_the_users_own_stay() -> None:
    desk = Desk("Transformer", steps=0)
    called: list[str] = []
    desk.plain.get_submodule("embed").register_forward_hook(lambda *_: called.append("own"))
    desk.plain.get_parameter("embed.weight").requires_grad_(False)
    plain = plain_module(desk.network)
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in plain.modules())
    assert hooks == 1 < sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in desk.plain.modules())
    called.clear()
    plain(desk.x)
    assert called == ["own"]
    assert [n for n, p in plain.named_parameters() if not p.requires_grad] == ["embed.weight"]


def test_memory_formats_and_number_types_stay() -> None:
    desk = Desk("Chain", dtype=torch.bfloat16)
    desk.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = plain_module(desk.network).get_parameter("conv2.weight")
    assert weight.dtype is torch.bfloat16 and weight.is_contiguous(memory_format=torch.channels_last)


def test_a_network_that_computes_its_weights_before_each_pass() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        plain = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 5)), nn.ReLU(), nn.Linear(5, 2))
    network = operable(plain, torch.randn(1, 3))
    plain(torch.randn(4, 3)).sum().backward()  # its weight is worked out, and no leaf
    check(network, plain_module(network), torch.randn(4, 3))


def test_a_plain_network_is_copied_as_it_is() -> None:
    plain = nn.Linear(3, 2)
    other = plain_module(plain)
    assert type(other) is nn.Linear and other is not plain and torch.equal(other.weight, plain.weight)


def test_a_compiled_network() -> None:
    desk = edited("Mlp")
    network = operable(torch.compile(desk.plain, backend="eager"), desk.x)
    plain = plain_module(network)
    assert type(plain) is type(desk.plain)
    assert same_answers(plain(desk.x), desk.plain(desk.x))


class OwnLayer(Conv2dWithNeuronOps):
    """A user's own layer, with a forward of its own."""

    def forward(self, x: torch.Tensor, intermediary: Any = None) -> torch.Tensor:  # type: ignore[override]
        return 2 * super().forward(x, intermediary=intermediary)


class OwnNet(NetworkWithOps):
    def __init__(self) -> None:
        super().__init__()
        self.conv = OwnLayer(2, 4, 3)
        self.unused = nn.Linear(2, 2)
        self.head = LinearWithNeuronOps(16, 3)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.tensor(0.5), persistent=False)

    def forward(self, x: torch.Tensor, mask: Any = None, intermediary: Any = None) -> torch.Tensor:
        self.maybe_update_age(x)
        x = F.relu(self.conv(x, intermediary=intermediary))
        x = x if mask is None else x * mask
        answer = self.head(x=x.flatten(1), skip_register=True) * self.scale + self.shift
        return answer * torch.tensor([1.0, 2.0, 3.0])


def test_a_layer_of_the_users_own_that_speaks_to_graybox_too() -> None:
    network = operable(OwnNet(), torch.randn(1, 2, 4, 4)).eval()
    plain = plain_module(network)
    check(network, plain, torch.randn(3, 2, 4, 4))
    assert type(plain.conv) is nn.Conv2d
    with pytest.raises(TypeError):  # optional arguments are as they are by default
        plain(torch.randn(3, 2, 4, 4), torch.zeros(()))


def test_a_forward_that_looks_at_its_mode_does_what_evaluation_does() -> None:
    network = DropNet().eval()
    with pytest.warns(UserWarning, match="the forward of DropNet looks at whether it trains"):
        plain = plain_module(network)
    x = torch.randn(3, 1, 4, 4)
    assert torch.equal(plain(x), network(x))
    plain.train()
    plain(x)
    assert float(plain.replaced) == 0 and plain.drop.training and not network.drop.training


class Undecided(NetworkWithOps):
    def __init__(self) -> None:
        super().__init__()
        self.only = LinearWithNeuronOps(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x) if x.sum() > 0 else self.only(-x)


class Stubborn(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("a lock in it")


class Hidden(nn.Module):
    """Calls a layer in a way that plain ones do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.only = Conv2dWithNeuronOps(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x, skip_register=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Undecided(), "the forward of Undecided cannot be followed .*decides by the values of tensors"),
        (
            lambda: operable(nn.Sequential(Stubborn(3, 2)), torch.ones(1, 3)),
            "cannot be copied: RuntimeError: a lock in it",
        ),
        (lambda: operable(Hidden(), torch.ones(1, 2, 2, 2)), "Hidden does not run without Graybox: TypeError"),
    ],
)
def test_what_cannot_be_made_plain_is_refused_with_the_reason(network: Any, message: str) -> None:
    made = network()
    before = {name: bits(value) for name, value in made.state_dict().items()}
    with pytest.raises(Refused, match=message):
        plain_module(made)
    assert {name: bits(value) for name, value in made.state_dict().items()} == before
    assert made.layers


def test_what_is_no_network() -> None:
    with pytest.raises(Invalid, match=r"a model is a torch.nn.Module, not a dict"):
        plain_module({})  # type: ignore[arg-type]


def test_the_plain_class_of_each_kind() -> None:
    class Mine(Conv2dWithNeuronOps):
        pass

    network = operable(nn.Sequential(nn.Conv1d(2, 3, 1)), torch.ones(1, 2, 4))
    assert plain_class(type(network.layers[0])) is nn.Conv1d
    assert plain_class(Mine) is nn.Conv2d
    assert plain_class(ChainNet) is nn.Module
    assert plain_class(nn.Linear) is nn.Linear


def test_same_answers_looks_at_every_bit() -> None:
    one = {"a": torch.tensor([1.0, float("nan")]), "b": (torch.tensor(2),)}
    assert same_answers(one, {"a": torch.tensor([1.0, float("nan")]), "b": (torch.tensor(2),)})
    for other in (
        {"a": torch.tensor([1.0 + 2**-23, float("nan")]), "b": (torch.tensor(2),)},
        {"a": torch.tensor([1.0, 0.0]), "b": (torch.tensor(2),)},
        {"a": torch.tensor([1.0, float("nan")]).double(), "b": (torch.tensor(2),)},
        {"a": torch.tensor([1.0, float("nan")])},
    ):
        assert not same_answers(one, other)
