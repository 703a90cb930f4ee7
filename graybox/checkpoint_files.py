"""A checkpoint's file: plain values with places for tensors, whose content lies in pieces that checkpoints share.

Format 2: `<id>.pt` is read by torch.load with weights_only. It is a dictionary: `format_version`; `tree`, the state, in
which {"__tensor__": i} stands for a tensor; `tensors`, [type, shape, strides] of each; and `chunks`, [SHA-256, bytes]
of each piece. The pieces one after the other are the tensors one after the other, each as it lies in memory. A large
tensor begins a piece of its own, so that one that did not change is the same piece in the next checkpoint, and is kept
once (graybox/store/chunks.py). Format 1: `<id>.pt` holds all of the state as torch.save writes it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graybox.errors import GrayboxError, StorageError
from graybox.state_copy import bytes_of, contiguous_strides, is_dense
from graybox.store.checkpoints import SHARED
from graybox.store.chunks import LARGEST, ChunkStore
from graybox.store.files import make_folder, write_atomically

FORMAT_VERSION = 2
OF_ITS_OWN = 512 << 10
"""Bytes from which on a tensor begins a piece of its own."""
TOGETHER = 4 << 20
"""Bytes of smaller tensors that make a piece at most."""
_TENSOR = "__tensor__"


@dataclass(frozen=True)
class Written:
    """What a checkpoint takes. chunks: names of the pieces it shares. size: bytes of all it holds; added: bytes that
    the disk holds more because of it."""

    chunks: tuple[str, ...]
    size: int
    added: int


def write_payload(path: Path, payload: Mapping[str, Any], shared: ChunkStore | None = None) -> Written:
    """Write a checkpoint file whole or not at all, its pieces first. shared: where they are kept; None: beside the
    file. Raises StorageError naming what cannot be written."""
    make_folder(path.parent)
    store = ChunkStore(path.parent / SHARED) if shared is None else shared
    tensors: list[torch.Tensor] = []
    tree = _without_tensors({k: v for k, v in payload.items() if k != "format_version"}, tensors)
    sizes: list[int] = []
    names, added = store.put(_counted(_pieces(tensors), sizes))
    buffer = io.BytesIO()
    whole = {
        "format_version": FORMAT_VERSION,
        "tree": tree,
        "tensors": [[str(t.dtype).removeprefix("torch."), list(t.shape), list(_strides(t))] for t in tensors],
        "chunks": [[name, size] for name, size in zip(names, sizes, strict=True)],
    }
    torch.save(whole, buffer)
    write_atomically(path, buffer.getbuffer())
    length = buffer.getbuffer().nbytes
    return Written(tuple(dict.fromkeys(names)), length + sum(sizes), length + added)


def read_payload(path: Path, shared: ChunkStore | None = None) -> dict[str, Any]:
    """Read a checkpoint file of this or an older format: tensors and plain values only, each tensor in memory of its
    own. Its content is compared with its checksums, but for that of the file itself, which its manifest has. shared: as
    for `write_payload`. Raises StorageError naming what is broken."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StorageError(f"checkpoint file {path.name} is missing") from None
    except Exception as error:  # torch raises whatever the broken bytes lead it to
        raise StorageError(f"checkpoint file {path.name} cannot be read: {error}") from error
    version = found.get("format_version") if isinstance(found, dict) else None
    if version == 1:
        return dict(found)
    if version != FORMAT_VERSION:
        raise StorageError(
            f"checkpoint file {path.name} has format {version}; this version reads 1 to {FORMAT_VERSION}"
        )
    store = ChunkStore(path.parent / SHARED) if shared is None else shared
    try:
        tensors = [_empty(*described) for described in found["tensors"]]
        _fill([flat for flat, _ in tensors], (_checked(store, name, size) for name, size in found["chunks"]))
        return {"format_version": version, **_with_tensors(found["tree"], [tensor for _, tensor in tensors])}
    except GrayboxError as error:
        raise StorageError(f"checkpoint file {path.name} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise StorageError(f"checkpoint file {path.name} is broken: {error!r}") from error


def _without_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    """The state with numbers in the place of tensors, which are put into the list. What no piece can hold (a sparse
    tensor) stays where it is."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or type(value) is not torch.Tensor:
            return value
        tensors.append(value)
        return {_TENSOR: len(tensors) - 1}
    if isinstance(value, dict):
        return {key: _without_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_tensors(item, tensors) for item in value)
    return value


def _with_tensors(value: Any, tensors: Sequence[torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_tensors(item, tensors) for item in value)
    return value


def _pieces(tensors: Sequence[torch.Tensor]) -> Iterator[bytes | memoryview]:
    together = bytearray()
    for tensor in tensors:
        content = bytes_of(tensor if is_dense(tensor) else tensor.contiguous()).data
        if together and (len(content) >= OF_ITS_OWN or len(together) + len(content) > TOGETHER):
            yield bytes(together)
            together.clear()
        if len(content) < OF_ITS_OWN:
            together += content
            continue
        for start in range(0, len(content), LARGEST):
            yield content[start : start + LARGEST]
    if together:
        yield bytes(together)


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """As it is kept: one with gaps without them."""
    return tensor.stride() if is_dense(tensor) else contiguous_strides(tensor.shape)


def _counted(pieces: Iterator[bytes | memoryview], sizes: list[int]) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        sizes.append(len(piece))
        yield piece


def _checked(store: ChunkStore, name: str, size: int) -> bytes:
    content = store.get(name)
    if len(content) != size:
        raise StorageError(f"its piece {name} has {len(content)} bytes instead of {size}")
    return content


def _empty(kind: str, shape: list[int], strides: list[int]) -> tuple[memoryview, torch.Tensor]:
    """A tensor and its bytes. Raises ValueError for what describes none."""
    dtype = getattr(torch, kind)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{kind} is no type of tensors")
    tensor = torch.empty_strided(shape, strides, dtype=dtype)
    if not is_dense(tensor):
        raise ValueError(f"strides {strides} of shape {shape} leave gaps")
    return bytes_of(tensor).data, tensor


def _fill(places: Sequence[memoryview], pieces: Iterator[bytes]) -> None:
    """Write the pieces one after the other into the places. Raises ValueError where they do not fit exactly."""
    piece = memoryview(b"")
    for place in places:
        start = 0
        while start < len(place):
            if not piece:
                piece = memoryview(next(pieces, b""))
                if not piece:
                    raise ValueError("its pieces are shorter than its tensors")
            taken = min(len(piece), len(place) - start)
            place[start : start + taken] = piece[:taken]
            start, piece = start + taken, piece[taken:]
    if piece or next(pieces, None) is not None:
        raise ValueError("its pieces are longer than its tensors")
