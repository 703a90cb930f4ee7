from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graybox.errors import Invalid, NotFound, StorageError
from graybox.neuron_ops import RemoveNeurons
from graybox.weight_files import (
    Weights,
    differences,
    parameter_count,
    read_weights,
    save_safetensors,
    save_state_dict,
    weights_of,
)
from tests.edited_networks import edited, shapes
from tests.small_networks import (
    bits,
    one_thread,  # noqa: F401
)
from tests.surgery_cases import Desk


def same(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(
        one[n].dtype == other[n].dtype and one[n].shape == other[n].shape and bits(one[n]) == bits(other[n])
        for n in one
    )


@pytest.mark.parametrize("name", ["Chain", "Depthwise", "TiedEmbedding", "GroupNorms", "Transformer"])
def test_what_is_written_is_the_plain_networks_state_dict(name: str, tmp_path: Path) -> None:
    desk = edited(name)
    state = desk.plain.state_dict()
    save_state_dict(desk.network, tmp_path / "net.pt")
    torch.save(state, tmp_path / "own.pt")
    ours, own = (torch.load(tmp_path / file, weights_only=True) for file in ("net.pt", "own.pt"))
    assert same(ours, own) and ours._metadata == own._metadata
    assert type(ours) is type(own)
    save_safetensors(desk.network, tmp_path / "net.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert same(dict(sorted(loaded.items())), dict(sorted(state.items())))
    for file in ("net.pt", "net.safetensors"):
        read, _ = read_weights(tmp_path / file)
        assert same(dict(sorted(read.items())), dict(sorted(state.items())))


def test_a_file_of_a_part_of_a_large_tensor_is_small_and_two_names_of_one_tensor_stay_one(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].weight = nn.Parameter(torch.zeros(1000, 1000)[3:5, :2])
    network[1].weight = network[0].weight
    save_state_dict(network, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").stat().st_size < 10_000
    found = torch.load(tmp_path / "net.pt", weights_only=True)
    assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()


def test_the_metadata_tells_the_sizes_of_now(tmp_path: Path) -> None:
    desk = Desk("Depthwise", steps=0)
    built = shapes(desk.plain)
    desk.surgeon.apply(desk.planned(RemoveNeurons), seed=1)
    now = shapes(desk.plain)
    assert built != now
    save_safetensors(desk.network, tmp_path / "net.safetensors", class_names=["cat", "dog"], built=built)
    with safetensors.safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        raw = file.metadata()
    assert raw["format"] == "pt" and all(isinstance(value, str) for value in raw.values())
    changes = json.loads(raw["structure_changes"])
    assert changes == {
        name: {"built": list(built[name]), "now": list(shape)} for name, shape in now.items() if shape != built[name]
    }
    assert json.loads(raw["class_names"]) == ["cat", "dog"]
    modules = dict(desk.plain.named_modules())
    for name, values in json.loads(raw["attributes"]).items():
        for key, value in values.items():
            kept = getattr(modules[name], key)
            assert value == (list(kept) if isinstance(kept, tuple) else kept)
    classes = json.loads(raw["module_classes"])
    assert {name: kind.rpartition(".")[2] for name, kind in classes.items()} == {
        name: type(module).__name__.removesuffix("WithNeuronOps")
        for name, module in modules.items()
        if module._parameters or module._buffers
    }
    assert raw["network"].endswith(".Depthwise")
    _, told = read_weights(tmp_path / "net.safetensors")
    assert told["structure_changes"] == changes


def test_without_what_is_not_known_the_metadata_says_nothing_of_it(tmp_path: Path) -> None:
    save_safetensors(nn.Linear(2, 3), tmp_path / "net.safetensors")
    _, told = read_weights(tmp_path / "net.safetensors")
    assert told.keys() == {"format", "graybox", "attributes", "module_classes", "network"}
    weights = weights_of(nn.Linear(2, 3))
    assert weights.changes() is None
    known = Weights(weights.tensors, built={"weight": (3, 4), "gone": (1,)})
    assert known.changes() == {
        "weight": {"built": [3, 4], "now": [3, 2]},
        "bias": {"built": None, "now": [3]},
        "gone": {"built": [1], "now": None},
    }


@pytest.mark.parametrize("save", [save_state_dict, save_safetensors])
def test_a_file_that_cannot_be_written_leaves_the_old_one(save: Any, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*missing"):
        save(nn.Linear(2, 3), tmp_path / "missing" / "net")
    (tmp_path / "net").write_text("old")
    weights = weights_of(nn.Linear(2, 3))
    broken = Weights({**weights.tensors, "a": torch.zeros(2).to_sparse(), "b": Unwritable()})
    with pytest.raises((Invalid, RuntimeError)):
        save(broken, tmp_path / "net")
    assert os.listdir(tmp_path) == ["net"] and (tmp_path / "net").read_text() == "old"


class Unwritable:
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be written")


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"seen": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"seen": 3}


def test_what_safetensors_cannot_hold_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"tensors only, and _extra_state is a dict: save a state_dict"):
        save_safetensors(WithExtraState(2, 2), tmp_path / "net")
    sparse = nn.Module()
    sparse.register_buffer("table", torch.eye(3).to_sparse())
    with pytest.raises(Invalid, match="dense tensors only, and table is not"):
        save_safetensors(sparse, tmp_path / "net")
    wide = nn.Module()
    wide.register_buffer("table", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(Invalid, match="safetensors cannot hold these weights"):
        save_safetensors(wide, tmp_path / "net")
    assert os.listdir(tmp_path) == []
    save_state_dict(WithExtraState(2, 2), tmp_path / "net")
    assert read_weights(tmp_path / "net")[0]["_extra_state"] == {"seen": 3}


@settings(max_examples=40)
@given(content=st.binary(max_size=60), beginning=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x10" + bytes(7)]))
def test_any_other_file_is_answered_with_an_error_that_names_it(
    content: bytes, beginning: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / "strange.bin"
    path.write_bytes(beginning + content)
    with pytest.raises((StorageError, Invalid), match=r"strange\.bin"):
        read_weights(path)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*net\.pt"):
        read_weights(tmp_path / "net.pt")
    with pytest.raises(StorageError, match="cannot read"):
        read_weights(tmp_path)
    torch.save({"epoch": 3, "state_dict": {"weight": torch.zeros(2)}}, tmp_path / "more.pt")
    with pytest.raises(Invalid, match=r"more than tensors by name: 'epoch' \(int\), 'state_dict' \(dict\)"):
        read_weights(tmp_path / "more.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(Invalid, match=r"holds a list; weights are a dict"):
        read_weights(tmp_path / "list.pt")


def test_a_pickle_that_would_run_something_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(StorageError, match="cannot be read as tensors"):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


def test_all_differences_are_told_at_once() -> None:
    here = {"a": torch.zeros(2, 3), "b": torch.zeros(4), "c": torch.zeros(1), "d": torch.zeros(2, dtype=torch.int64)}
    there = {"a": torch.zeros(3, 3), "b": torch.zeros(4, 1), "d": torch.zeros(2), "e": torch.zeros(1)}
    assert differences(here, there) == [
        "c is missing there",
        "e is not in this network",
        "a has the shape [3, 3] there and [2, 3] here",
        "b has the shape [4, 1] there and [4] here",
        "d is torch.float32 there and torch.int64 here",
    ]
    assert "a has the shape [3, 3] there and [2, 3] here" not in differences(here, there, any_size=True)
    assert len(differences(here, there, any_size=True)) == 4
    assert differences(here, {name: value.clone() for name, value in here.items()}) == []


def test_numbers_are_counted() -> None:
    network = nn.Linear(3, 4)
    assert parameter_count(network.state_dict()) == sum(p.numel() for p in network.parameters()) == 16
