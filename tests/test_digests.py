from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.digests import BLOCK, LARGE, Digester, _products, mixed, products_anywhere, wrapped
from graybox.randomness import hashes
from tests.small_networks import one_thread  # noqa: F401

MODULUS = 1 << 64
SIZES = [0, 1, 7, 8, 9, 8 * BLOCK - 1, 8 * BLOCK, 8 * BLOCK + 1, 8 * BLOCK * LARGE, 8 * BLOCK * (LARGE + 2) + 5]


def as_mixed(number: int) -> int:
    """SplitMix64's finaliser, on Python's own whole numbers."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) % MODULUS
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) % MODULUS
    return number ^ (number >> 31)


def expected(content: bytes) -> int:
    """As the docstring of Digester says, word by word."""
    words = [int.from_bytes(content[i : i + 8].ljust(8, b"\0"), "little") for i in range(0, len(content), 8)]
    odd = {seed: [int(n) | 1 for n in hashes(seed, np.arange(max(BLOCK, len(words))))] for seed in (1, 2, 3)}
    total = len(content) * 0x9E3779B97F4A7C15
    for block in range(0, len(words), BLOCK):
        row = 0
        for place, word in enumerate(words[block : block + BLOCK]):
            row += word * odd[1][place] + (wrapped(word) >> 32) * odd[3][place]
        total += as_mixed(row % MODULUS) * odd[2][block // BLOCK]
    return wrapped(as_mixed(total % MODULUS))


@pytest.mark.parametrize("size", SIZES)
def test_the_number_is_what_its_description_says(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert Digester().of([torch.from_numpy(content)]).tolist() == [expected(content.tobytes())]


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 3, 4, 4), (65, 1025)], ids=str)
def test_every_type_and_shape_counts_by_its_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 3).to(dtype)
    content = bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())
    assert Digester().of([tensor]).tolist() == [expected(content)]


def test_how_a_tensor_lies_in_memory_makes_no_difference() -> None:
    digester = Digester()
    plain = torch.randn(6, 8, 5, 5)
    apart = torch.zeros(1 + plain.numel())
    apart[1:] = plain.flatten()
    same = [
        plain,
        plain.to(memory_format=torch.channels_last),
        plain.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        apart[1:].view(plain.shape),  # begins in the middle of a word
        plain.requires_grad_(),
        plain.detach().to_sparse(),
    ]
    assert len(set(digester.of(same).tolist())) == 1
    numbers = torch.randn(4, 3, dtype=torch.complex64)
    assert digester.of([numbers.conj()]).tolist() == digester.of([numbers.conj().resolve_conj()]).tolist()
    assert digester.of([numbers.conj()]).tolist() != digester.of([numbers]).tolist()


@settings(max_examples=60)
@given(st.data())
def test_any_single_bit_changes_the_number(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([s for s in SIZES if s]))
    content = torch.from_numpy(np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8))
    other = content.clone()
    other[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    one, two = Digester().of([content, other]).tolist()
    assert one != two


def test_zeros_swaps_and_lengths_are_told_apart() -> None:
    digester = Digester()
    block = torch.arange(8 * BLOCK, dtype=torch.int64)
    swapped_words, swapped_blocks = block.clone(), block.clone()
    swapped_words[[0, 1]] = block[[1, 0]]
    swapped_blocks[: 2 * BLOCK] = torch.cat([block[BLOCK : 2 * BLOCK], block[:BLOCK]])
    tensors = [block, swapped_words, swapped_blocks, block[:-1], torch.cat([block, torch.zeros(1, dtype=torch.int64)])]
    tensors += [torch.zeros(n) for n in range(6)] + [torch.tensor([0.0, -0.0]), torch.zeros(9 * BLOCK)]
    assert len(set(digester.of(tensors).tolist())) == len(tensors)


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_tensor_has_its_number_whatever_stands_beside_it(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    digester = Digester()
    together = digester.of(tensors).tolist()
    assert together == [digester.of([tensor]).item() for tensor in tensors]
    assert together == digester.of(tensors).tolist(), "the second time, with what it kept"


def test_other_devices_than_the_cpu_come_to_the_same_sums() -> None:
    blocks = torch.randint(-(2**62), 2**62, (70, BLOCK)) * 2
    tables = torch.randint(-(2**62), 2**62, (BLOCK,)), torch.randint(-(2**62), 2**62, (BLOCK,))
    words, one, two = (t.numpy().astype(object) for t in (blocks, *tables))
    exact = (words * one + (words // 2**32) * two).sum(1)
    assert _products(blocks, tables).tolist() == products_anywhere(blocks, tables).tolist()
    assert products_anywhere(blocks, tables).tolist() == [wrapped(int(n)) for n in exact]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64], ids=str)
def test_signs_of_many_numbers_do_not_cancel(dtype: torch.dtype) -> None:
    """The highest bit of a word is lost in a product modulo 2**64 with an odd number."""
    digester = Digester()
    numbers = torch.arange(1, 65).to(dtype)
    found = {int(digester.of([numbers]))}
    for place in range(64):
        for other in range(place + 1, 64):
            turned = numbers.clone()
            turned[[place, other]] = -turned[[place, other]]
            found.add(int(digester.of([turned])))
    found.add(int(digester.of([-numbers])))
    assert len(found) == 64 * 63 // 2 + 2


@given(st.integers(-(2**63), 2**63 - 1))
def test_mixing_is_splitmix(number: int) -> None:
    assert int(mixed(torch.tensor([number]))) == wrapped(as_mixed(number % MODULUS))


def test_trees_of_tensors_and_values() -> None:
    digester = Digester()
    x, y = torch.randn(3, 2), torch.randn(3, 2)
    trees: list[Any] = [
        x, y, (x, y), (y, x), [x, y], {"a": x, "b": y}, {"a": y, "b": x}, {"a": x, "c": y}, (x, 1), (x, 2), (x, "1"),
        (x, None), x.double(), x.view(2, 3), x.view(torch.int32), [], "text", 3, None,
    ]  # fmt: skip
    numbers = [int(digester.of_tree(tree)) for tree in trees]
    assert len(set(numbers)) == len(trees)
    assert numbers == [int(Digester().of_tree(tree)) for tree in trees]
    assert int(digester.of_tree((x, object()))) == int(digester.of_tree((x, object()))), "by its type alone"


def test_no_random_number_is_drawn_and_no_gradient_made() -> None:
    weight = torch.randn(5, requires_grad=True)
    before = torch.get_rng_state()
    number = Digester().of([weight])
    assert torch.equal(torch.get_rng_state(), before) and not number.requires_grad and weight.grad is None
