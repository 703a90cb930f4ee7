"""Looking at what cannot be seen (a layer nobody calls, a sample that fails) is refused and leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graybox.errors import Refused
from graybox.inspection import read_activations, read_sample
from graybox.modules_with_ops import LinearWithNeuronOps
from tests.small_experiments import Augmented, DropNet, Opened, toy_experiment, whole_state
from tests.small_networks import differences, random_state


class WithSpare(DropNet):
    def __init__(self) -> None:
        super().__init__()
        self.spare = LinearWithNeuronOps(2, 2)


@pytest.mark.filterwarnings("ignore:what consumes")
def test_what_cannot_be_seen_is_said(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    opened = Opened(root, toy_experiment(model=WithSpare(), train_dataset=Augmented(9, broken)))
    try:
        session = opened.session
        before, drawn = whole_state(session), random_state()
        with pytest.raises(Refused, match="the network does not call layer 'spare'"):
            read_activations(session, "spare", "train", "1")
        broken.write_text("1")
        for read in (
            lambda: read_activations(session, "conv", "train", "1"),
            lambda: read_sample(session, "train", "1"),
        ):
            with pytest.raises(Refused, match=r"sample 1 of train failed to load: OSError: file 1.png"):
                read()
        session.network.drop.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            read_activations(session, "conv", "train", "2")
        assert differences(before, whole_state(session)) == [] and differences(drawn, random_state()) == []
        assert not session.network.conv._forward_hooks
        assert all(module.training for module in session.network.modules())
        assert torch.is_grad_enabled()
    finally:
        opened.close()
