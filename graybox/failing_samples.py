"""Samples that cannot be loaded, put together or trained on: which of a batch they are, and what is said of them."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from graybox.errors import GrayboxError
from graybox.store.sample_notes import BAD_LOSS, FAILED

MAX_MARKED = 1_000
"""So many samples at most are tagged for one failure."""
_SHOWN = 10


@dataclass(frozen=True)
class LoadFailure:
    """Samples that could not be loaded: the first one, why, in one line, and the traceback; others: those of the same
    batch that failed likewise."""

    row: int
    reason: str
    trace: str
    others: tuple[int, ...] = ()


class SampleError(GrayboxError):
    """A step or an evaluation failed because of some samples. The message names them; `trace` is the traceback of the
    user's own code, where it was that. split, rows: the samples; tag: what they are marked with."""

    def __init__(self, message: str, trace: str = "", *, split: str = "", rows: Iterable[int] = (), tag: str = FAILED):
        super().__init__(message)
        self.trace = trace
        self.split = split
        self.rows = tuple(rows)[:MAX_MARKED]
        self.tag = tag

    @property
    def marks(self) -> dict[str, Any]:
        """What the journal needs to mark the samples again: {"tag", "rows": {split: rows}}; {} where there are none."""
        return {"tag": self.tag, "rows": {self.split: list(self.rows)}} if self.rows else {}


class SampleLoadError(SampleError):
    """A sample could not be loaded."""


class SampleStepError(SampleError):
    """A sample was loaded, and the network or the loss cannot do with it."""


class NonFiniteLoss(SampleError):
    """The loss of a batch is NaN or infinite. The weights were not touched."""

    loss = float("nan")


def load_error(split: str, failure: LoadFailure) -> SampleLoadError:
    """The error for samples that could not be loaded."""
    rows = (failure.row, *failure.others)
    message = f"{in_words(split, rows)} failed to load: {failure.reason}. {what_to_do(FAILED, rows)}"
    return SampleLoadError(message, failure.trace, split=split, rows=rows)


def step_error(split: str, rows: Sequence[int], error: Exception) -> SampleStepError:
    """The error for samples that the network or the loss cannot do with."""
    reason = str(error) if isinstance(error, GrayboxError) else f"{type(error).__name__}: {error}"
    message = f"{in_words(split, rows)} cannot be used: {reason.rstrip('.')}. {what_to_do(FAILED, rows)}"
    return SampleStepError(message, "".join(traceback.format_exception(error)), split=split, rows=rows)


def non_finite(split: str, loss: float, named: Sequence[int]) -> NonFiniteLoss:
    """The error for a loss that is NaN or infinite. named: the samples that it comes from, where those are not all of
    the batch: else the weights are more likely to blame."""
    which = f" (from {in_words(split, named)})" if named else ""
    advice = "Lower the learning rate, discard the samples or go back to a checkpoint, then resume"
    if named:
        advice += f"; the query tag:{BAD_LOSS} finds them"
    message = f"the loss is {loss}{which}; the weights were not touched. {advice}"
    error = NonFiniteLoss(message, split=split, rows=named, tag=BAD_LOSS)
    error.loss = loss
    return error


def bad_rows(loss: float, rows: np.ndarray, losses: np.ndarray) -> list[int]:
    """The samples of a batch whose loss is no finite number, where the batch's is none either; [] where all are so."""
    bad = ~np.isfinite(losses)
    infinite = np.isinf(losses)
    if np.isinf(loss) and infinite.any():
        bad = infinite  # a NaN that counted would have made it NaN: it is of an empty mask, of which nothing counts
    return [] if np.isfinite(loss) or bad.all() else rows[bad].tolist()


def in_words(split: str, rows: Sequence[int]) -> str:
    """ "training samples 3, 8"."""
    shown = ", ".join(map(str, rows[:_SHOWN])) + (f" and {len(rows) - _SHOWN} others" if len(rows) > _SHOWN else "")
    return f"{'training' if split == 'train' else split} sample{'' if len(rows) == 1 else 's'} {shown}"


def what_to_do(tag: str, rows: Sequence[int]) -> str:
    """The way on."""
    them = "the sample" if len(rows) == 1 else "the samples"
    return f"Mend it, or discard {them} (the query tag:{tag} finds {'it' if len(rows) == 1 else 'them'}), and resume"


# -- which sample of a batch it is ------------------------------------------------------------------


def odd_items(items: Sequence[Any]) -> list[int]:
    """Numbers of the items that are no samples at all, or of another kind than most."""
    kinds = [_kind(item) for item in items]
    none = [number for number, kind in enumerate(kinds) if kind in ("None", "text")]
    return none or _minority(kinds)


def cannot_be_collated(items: Sequence[Any], collate: Callable[[list[Any]], Any]) -> list[int]:
    """Numbers of the items because of which `collate` raised: those that it cannot do with alone, else those that are
    built otherwise than most; all of them where neither tells them apart."""
    alone = [number for number, item in enumerate(items) if not _works(partial(collate, [item]))]
    if 0 < len(alone) < len(items):
        return alone
    return _minority([_built(item) for item in items]) or list(range(len(items)))


def fails_alone(count: int, run: Callable[[int], object]) -> list[int]:
    """Numbers of the samples of a batch for which run(number) raises; [] where it does for all of them, so that it is
    not about samples."""
    bad = [number for number in range(count) if not _works(partial(run, number))]
    return bad if len(bad) < count else []


def one_of(value: Any, number: int, count: int) -> Any:
    """What is of one sample in the inputs or the target of a collated batch of `count`: a batch of one."""
    if isinstance(value, torch.Tensor):
        return value[number : number + 1] if value.dim() and len(value) == count else value
    if isinstance(value, Mapping):
        return {key: one_of(part, number, count) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        whole = all(isinstance(part, torch.Tensor) and part.dim() and len(part) == count for part in value)
        if len(value) == count and not (whole and value):
            # Numbers among other things could not be put together; this one can.
            return torch.tensor([value[number]]) if type(value[number]) in (int, float) else [value[number]]
        return [one_of(part, number, count) for part in value]
    return value


def described(item: Any) -> str:
    """What an item is, for a message."""
    if isinstance(item, (tuple, list)):
        return f"a {type(item).__name__} of {len(item)}"
    return "None" if item is None else f"a {type(item).__name__}"


def _works(run: Callable[[], object]) -> bool:
    try:
        run()
    except Exception:  # the user's own code: whether it raises is what is asked
        return False
    return True


def _kind(item: Any) -> str:
    if item is None:
        return "None"
    if isinstance(item, (str, bytes)):
        return "text"
    if isinstance(item, Mapping):
        return "dict"
    return f"{len(item)} parts" if isinstance(item, (tuple, list)) else "value"


def _built(item: Any) -> str:
    """How an item is built: types, lengths, shapes."""
    if isinstance(item, (torch.Tensor, np.ndarray)):
        return f"{item.dtype} {list(item.shape)}"
    if isinstance(item, Mapping):
        return str({key: _built(part) for key, part in item.items()})
    if isinstance(item, (tuple, list)):
        return str([_built(part) for part in item])
    return type(item).__name__


def _minority(kinds: Sequence[str]) -> list[int]:
    """Numbers of those that are not as most are; none where nothing is as most are."""
    (usual, count), *_ = Counter(kinds).most_common(1) or [("", 0)]
    return [number for number, kind in enumerate(kinds) if kind != usual] if 2 * count > len(kinds) else []
