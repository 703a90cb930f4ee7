"""Copies of nested state that are cheap to make: into memory that was used for the copy before."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graybox.errors import StorageError

SMALL = 64 << 10
"""Bytes of a tensor on the CPU below which memory of its own is as fast."""
BLOCK = 64 << 20
_ALIGNED = 64
_COUNTER = "__counter__"


class Space:
    """Memory for one copy at a time, kept for the next one.

    Fresh memory is several times slower to write to than memory that was written to before: the system hands it out
    page by page. So whoever copies the same state again and again does it in one place. A copy is complete once `wait`
    returns: what comes from a GPU, into pinned memory, is on its way meanwhile, and what may be copied later waits for
    `start`.
    """

    def __init__(self) -> None:
        self._blocks: dict[bool, list[tuple[torch.Tensor, np.ndarray[Any, Any]]]] = {False: [], True: []}
        self._at: dict[bool, tuple[int, int]] = {}
        self._on_its_way: set[torch.device] = set()
        self._arrivals: list[torch.cuda.Event] = []
        self._later: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | torch.Tensor]] = []
        self._thread: threading.Thread | None = None
        self.reset()

    def reset(self) -> None:
        """The copy that was made in it is no longer wanted. Memory that it did not need is given back."""
        self.wait()
        for pinned, (block, _) in self._at.items():
            del self._blocks[pinned][block + 1 :]
        self._at = {False: (0, 0), True: (0, 0)}
        self._thread = None
        self._later.clear()
        self._arrivals.clear()
        self._on_its_way.clear()

    def copy(self, tensor: torch.Tensor, *, later: bool = False) -> torch.Tensor:
        """A copy on the CPU, laid out as the tensor is where that leaves no gaps. It is a view of this memory. later:
        where that can wait, nothing is copied before `start`, and the tensor must not change before `settle`."""
        source = tensor.detach()
        if type(source) is not torch.Tensor or source.layout is not torch.strided or source.is_quantized:
            return source.cpu().clone()
        if source.is_conj() or source.is_neg():
            source = source.resolve_conj().resolve_neg()
        if source.is_cpu:
            if source.nbytes < SMALL:
                return source.clone()
            if source.is_contiguous():
                made, place = self._take(source.nbytes)
                if later:
                    self._later.append((place, source))
                else:
                    np.copyto(place, bytes_of(source))  # on one thread: two are no faster, and wait for each other
                return made.view(source.dtype).view(source.shape)
        strides = source.stride() if is_dense(source) else contiguous_strides(source.shape)
        flat = self._take(source.nbytes, pinned=source.is_cuda)[0].view(source.dtype)
        copied = flat.as_strided(source.shape, strides)
        copied.copy_(source, non_blocking=source.is_cuda)
        self._on_its_way |= {source.device} if source.is_cuda else set()
        return copied

    def copy_array(self, array: np.ndarray[Any, Any], *, later: bool = False) -> np.ndarray[Any, Any]:
        """A contiguous copy of an array of numbers. It is a view of this memory. later: as for `copy`."""
        if array.nbytes < SMALL:
            return array.copy()
        made: np.ndarray[Any, Any] = self._take(array.nbytes)[1].view(array.dtype).reshape(array.shape)
        if later:
            self._later.append((made, array))
        else:
            np.copyto(made, array)
        return made

    def start(self) -> None:
        """All that the copy is of was told: what was left for later is copied now, in a thread of its own. What comes
        from a GPU may change from now on, in the order of its stream."""
        for device in self._on_its_way:
            arrival = torch.cuda.Event()
            arrival.record(torch.cuda.current_stream(device))
            self._arrivals.append(arrival)
        self._on_its_way.clear()
        if self._later:
            self._thread = threading.Thread(target=self._catch_up, name="graybox-copy", daemon=True)
            self._thread.start()

    def settle(self) -> None:
        """Until nothing of the copy is left for later: what it is of may change."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def wait(self) -> None:
        """Until the copy is complete. Callable from any thread."""
        self.settle()
        for arrival in self._arrivals:
            arrival.synchronize()

    def _catch_up(self) -> None:
        for place, source in self._later:
            np.copyto(place, bytes_of(source) if isinstance(source, torch.Tensor) else source)
        self._later.clear()

    def _take(self, size: int, *, pinned: bool = False) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
        """uint8 [size], its beginning aligned for every type, as a tensor and as an array."""
        blocks = self._blocks[pinned]
        block, offset = self._at[pinned]
        while block < len(blocks) and offset + size > len(blocks[block][1]):
            block, offset = block + 1, 0
        if block == len(blocks):
            memory = torch.empty(max(size, BLOCK), dtype=torch.uint8, pin_memory=pinned)
            blocks.append((memory, memory.numpy()))
        end = offset + size
        self._at[pinned] = (block, -(-end // _ALIGNED) * _ALIGNED)
        memory, array = blocks[block]
        return memory[offset:end], array[offset:end]


class Spaces:
    """Spaces that wait for the next copy. Usable from several threads."""

    def __init__(self, most: int) -> None:
        """most: so many are kept; what comes back beyond that is given back to the system."""
        self._most = most
        self._spare: list[Space] = []
        self._guard = threading.Lock()

    def lease(self, users: int = 1) -> Lease:
        """A space for a copy that so many will look at."""
        with self._guard:
            space = self._spare.pop() if self._spare else Space()
        return Lease(self, space, users)

    def take_back(self, space: Space) -> None:
        """Nobody looks at the copy in it any more."""
        space.reset()
        with self._guard:
            if len(self._spare) < self._most:
                self._spare.append(space)


class Lease:
    """A space in use; it waits for the next copy once all of its users have released it."""

    def __init__(self, home: Spaces, space: Space, users: int) -> None:
        self.space = space
        self._home = home
        self._users = users
        self._guard = threading.Lock()

    def release(self, users: int = 1) -> None:
        """So many of its users are through with the copy."""
        with self._guard:
            self._users -= users
            last = not self._users
        if last:
            self._home.take_back(self.space)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's entries lie side by side in memory, in whatever order of its axes."""
    if not tensor.numel():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def bytes_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The memory of a dense tensor on the CPU, uint8 [bytes], in the order of its strides."""
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    found: np.ndarray[Any, Any] = flat.view(torch.uint8).numpy()
    return found


def contiguous_strides(shape: torch.Size) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def to_plain(value: Any, space: Space | None = None, *, later: bool = False) -> Any:
    """A copy of nested state as tensors on the CPU, numbers, text, lists and dicts. Raises StorageError naming a type
    that cannot be kept.

    space: where the copies lie, until its `reset`, complete after its `wait`; None: in memory of their own, and
    complete. later: whether large tensors may be copied later, see `Space.copy`.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone() if space is None else space.copy(value, later=later)
    if isinstance(value, np.generic):  # before the others: NumPy's float64 is a float too, which torch would not load
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy() if space is None else space.copy_array(value))
    if isinstance(value, Counter):  # MultiStepLR keeps its milestones in one
        return {_COUNTER: [[to_plain(k), v] for k, v in value.items()]}
    if isinstance(value, Mapping):
        return {key: to_plain(item, space, later=later) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item, space, later=later) for item in value)
    if isinstance(value, list):
        return [to_plain(item, space, later=later) for item in value]
    raise StorageError(
        f"a checkpoint holds tensors and plain values; {type(value).__name__} in the state of the model, the optimizer "
        "or the scheduler is neither"
    )


def from_plain(value: Any) -> Any:
    """What `to_plain` made, turned back."""
    if isinstance(value, dict):
        if set(value) == {_COUNTER}:
            return Counter(dict(value[_COUNTER]))
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value
