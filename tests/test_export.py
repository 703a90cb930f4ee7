"""The files that leave Graybox are used by somebody who does not have it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch

import graybox
from graybox import export
from tests.conftest import REPOSITORY
from tests.edited_networks import edit_at_random, edited
from tests.patience import PATIENCE
from tests.small_networks import (
    ChainNet,
    bits,
    built,
    one_thread,  # noqa: F401
)

BLOCKED = textwrap.dedent("""
    import sys

    class NoGraybox:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("graybox", "tests"):
                raise ImportError(f"{name} is not installed here")

    sys.meta_path.insert(0, NoGraybox())
    try:
        import graybox
    except ImportError:
        pass
    else:
        sys.exit("Graybox is there after all")
""")

ELSEWHERE = textwrap.dedent("""
    import safetensors.torch, torch
    from torch import nn
    from torch.nn import functional as F

    class Chain(nn.Module):
        # The same network, written by somebody else, with the sizes that the weights have.
        def __init__(self, w):
            super().__init__()
            (a, i), (b, _), (c, f), (o, _) = (w[n].shape[:2] for n in
                ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"))
            self.conv1, self.bn1 = nn.Conv2d(i, a, 3, padding=1), nn.BatchNorm2d(a)
            self.conv2, self.bn2 = nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b)
            self.fc1, self.fc2 = nn.Linear(f, c), nn.Linear(c, o)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
            x = F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
            return self.fc2(F.silu(self.fc1(torch.flatten(x, 1))))

    torch.set_num_threads(1)
    x = torch.load("x.pt")
    found = {}
    with torch.no_grad():
        for name, weights in (("state_dict", torch.load("net.pt")),
                              ("safetensors", safetensors.torch.load_file("net.safetensors"))):
            net = Chain(weights).double()
            net.load_state_dict(weights)
            found[name] = net.eval()(x)
        found["program"] = torch.export.load("net.pt2").module()(x)
        y = torch.load("y.pt")
        found["pickle"] = torch.load("net.pickle", weights_only=False)(y)
    assert not [name for name in sys.modules if name.partition(".")[0] in ("graybox", "tests")]
    torch.save(found, "found.pt")
""")


def test_others_come_to_the_same_bits_without_graybox(tmp_path: Path) -> None:
    desk = edited("Chain", seed=4)
    speaks = built(ChainNet).eval()
    edit_at_random(speaks.surgeon(), [name for name, _ in speaks.named_layers()], seed=1)
    x, y = desk.x, ChainNet.example(3)
    with torch.no_grad():
        expected, other = desk.network(x), speaks(y)
    assert desk.network.find_layer("conv1")[1].neuron_count != 5, "it was edited"
    torch.save(x, tmp_path / "x.pt")
    torch.save(y, tmp_path / "y.pt")
    export.save_state_dict(desk.network, tmp_path / "net.pt")
    export.save_safetensors(desk.network, tmp_path / "net.safetensors")
    export.export_program(desk.network, None, tmp_path / "net.pt2")
    torch.save(export.plain_module(speaks), tmp_path / "net.pickle")
    done = subprocess.run(
        [sys.executable, "-I", "-c", BLOCKED + ELSEWHERE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(tmp_path / "found.pt")
    for name in ("state_dict", "safetensors", "program"):
        assert bits(found[name]) == bits(expected), name
    assert bits(found["pickle"]) == bits(other)


def test_the_public_names() -> None:
    for name in ("plain_module", "save_state_dict", "save_safetensors", "load_weights", "export_program"):
        assert getattr(graybox, name) is getattr(export, name)
    text = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    for name in export.__all__:
        assert name in text or name == "Weights", name
