"""A 64-bit number for the bits of a tensor, worked out where the tensor is: equal bits give equal numbers on every
device, and other bits other numbers, but for one chance in billions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten

from graybox.randomness import hashes

BLOCK = 512
"""Words of 8 bytes that are summed up at once."""
LARGE = 64
"""From so many whole blocks on a tensor is read where it lies, instead of being copied beside others."""
KEPT = 16
"""Plans for so many lists of sizes: weights, gradients and batches of one network, and those of a few edits."""
PIECE = 16_384
"""So many blocks at most are multiplied at once where the product takes memory: 64 MiB."""
CACHED = 64
"""The same where memory is slow, and a cache is not: 256 KiB."""
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_LENGTH = 0x9E3779B97F4A7C15 - (1 << 64)


Tables = tuple[torch.Tensor, torch.Tensor]
"""What the words of a block are multiplied by, and what their upper halves are, int64 [BLOCK] each."""


@dataclass(frozen=True)
class _Plan:
    """factors, owners: int64 [blocks], the number that each block's sum is multiplied by, and whose block it is.
    lengths: int64 [tensors], what is told of each one's length."""

    factors: torch.Tensor
    owners: torch.Tensor
    lengths: torch.Tensor


class Digester:
    """Keeps what the digests of the same tensors need again and again. For one thread.

    Each word of a block is multiplied by an odd random number, and its upper half, which the first product may lose, by
    another; all are added up modulo 2**64. The sums of the blocks are mixed, multiplied by odd random numbers again,
    added up, and mixed with the length. Integers have the same sum in any order, so that no device rounds.
    """

    def __init__(self) -> None:
        self._tables: dict[torch.device, Tables] = {}
        self._plans: dict[tuple[torch.device, tuple[int, ...]], _Plan] = {}

    @torch.no_grad()
    def of(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """int64 [tensors], on the device of the first; all of them on one device, of any type and layout. Never waits
        for the device."""
        if not tensors:
            return torch.zeros(0, dtype=torch.int64)
        device = tensors[0].device
        words = [_words(tensor) for tensor in tensors]
        plan = self._plan(device, tuple(tensor.numel() * tensor.element_size() for tensor in tensors))
        sums = mixed(self._sums(words, device)) * plan.factors
        return mixed(plan.lengths.index_add(0, plan.owners, sums))

    def of_tree(self, value: Any) -> torch.Tensor:
        """One number for tensors, numbers and text within tuples, lists and dicts: int64, no dimensions, on the device
        of the first tensor. What is something else counts by its type alone."""
        leaves, shape = tree_flatten(value)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        others = [_text(leaf) for leaf in leaves]
        told = int.from_bytes(_hashed("\n".join([str(shape), *others])), "little", signed=True)
        if not tensors:
            return torch.tensor(told)
        device = tensors[0].device
        parts = self.of([tensor if tensor.device == device else tensor.to(device) for tensor in tensors])
        return mixed((parts * _odd(2, len(tensors)).to(device)).sum() + told)

    def _sums(self, words: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
        """Of every block of every tensor, int64 [blocks]; the last block of a tensor is filled up with zeros."""
        table = self._table(device)
        zeros = torch.zeros(BLOCK, dtype=torch.int64, device=device)
        found: list[torch.Tensor] = []
        waiting: list[torch.Tensor] = []

        def flush() -> None:
            if waiting:
                found.append(_products(torch.cat(waiting).view(-1, BLOCK), table))
                waiting.clear()

        for each in words:
            whole = len(each) // BLOCK * BLOCK
            if whole >= LARGE * BLOCK:
                flush()
                found.append(_products(each[:whole].view(-1, BLOCK), table))
                each = each[whole:]
            if len(each):
                waiting.append(each)
                if len(each) % BLOCK:
                    waiting.append(zeros[len(each) % BLOCK :])
        flush()
        return torch.cat(found) if found else zeros[:0]

    def _plan(self, device: torch.device, sizes: tuple[int, ...]) -> _Plan:
        """sizes: of the tensors, in bytes."""
        plan = self._plans.get((device, sizes))
        if plan is None:
            if len(self._plans) >= KEPT:  # edits of structure
                self._plans.clear()
            blocks = [math.ceil(size / (8 * BLOCK)) for size in sizes]
            owners = np.repeat(np.arange(len(sizes)), blocks)
            plan = _Plan(
                torch.cat([_odd(2, count) for count in blocks]).to(device),
                torch.from_numpy(owners).to(device),
                torch.tensor([wrapped(size * _LENGTH) for size in sizes]).to(device),
            )
            self._plans[device, sizes] = plan
        return plan

    def _table(self, device: torch.device) -> Tables:
        if device not in self._tables:
            self._tables[device] = _odd(1, BLOCK).to(device), _odd(3, BLOCK).to(device)
        return self._tables[device]


def _odd(seed: int, count: int) -> torch.Tensor:
    """Odd random numbers, int64 [count]; the first ones are the same for every count."""
    return torch.from_numpy((hashes(seed, np.arange(count)) | np.uint64(1)).view(np.int64))


def _products(blocks: torch.Tensor, tables: Tables) -> torch.Tensor:
    """The sum of each row's words, as Digester says."""
    if blocks.device.type == "cpu":  # whose product of whole numbers takes no memory; others have none
        pieces = blocks.split(CACHED)
        return torch.cat([torch.mv(piece, tables[0]).add_(torch.mv(piece >> 32, tables[1])) for piece in pieces])
    return products_anywhere(blocks, tables)


def products_anywhere(blocks: torch.Tensor, tables: Tables) -> torch.Tensor:
    """The same on any device."""
    pieces = blocks.split(PIECE)
    return torch.cat([(piece * tables[0]).sum(1) + ((piece >> 32) * tables[1]).sum(1) for piece in pieces])


def mixed(numbers: torch.Tensor) -> torch.Tensor:
    """int64 as SplitMix64 mixes it (Steele, Lea and Flood, 2014)."""
    for shift, factor in zip((30, 27), _MIX, strict=True):
        numbers = (numbers ^ _shifted(numbers, shift)) * factor
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: torch.Tensor, places: int) -> torch.Tensor:
    """To the right, with zeros from the left, as of numbers without sign."""
    return (numbers >> places) & ((1 << (64 - places)) - 1)


def wrapped(number: int) -> int:
    """Modulo 2**64, as a number with sign."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor's numbers, in their order and not in that of memory, as int64 [words]; the last one is
    filled up with zeros."""
    value = tensor.detach()
    if value.layout is not torch.strided:
        value = value.to_dense()
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    flat = value.resolve_neg().contiguous().reshape(-1)
    if flat.dtype is torch.bool:
        flat = flat.view(torch.uint8)
    per_word = 8 // flat.element_size()
    count = flat.numel()
    if not count:
        return torch.zeros(0, dtype=torch.int64, device=flat.device)
    if count % per_word or flat.storage_offset() % per_word:
        padded = flat.new_zeros(math.ceil(count / per_word) * per_word)
        padded[:count] = flat
        flat = padded
    return flat.view(torch.int64)


def _text(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return repr(leaf) if isinstance(leaf, (bool, int, float, str, bytes, type(None))) else type(leaf).__qualname__


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
