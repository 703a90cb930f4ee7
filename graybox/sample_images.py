"""Pictures of samples, before augmentation, for whoever looks at them."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from graybox.commands import Commands, ReadSample
from graybox.errors import GrayboxError, NotFound, Refused
from graybox.experiment import Experiment
from graybox.interventions import row_of

THUMBNAIL_PIXELS = 128
CACHE_BYTES = 64 * 2**20
JPEG_QUALITY = 85
LOAD_SECONDS = 30.0


class SampleImages:
    """See graybox.snapshot.Images. Reads an image file, an array or a tensor directly where the data set has one;
    otherwise the owner loads the sample between two steps, since that may draw random numbers."""

    def __init__(self, experiment: Experiment, commands: Commands) -> None:
        self._datasets = {split: wrapper.dataset for split, wrapper in experiment.datasets.items()}
        self._keys = {split: wrapper.fingerprint() for split, wrapper in experiment.datasets.items()}
        self._commands = commands
        self._cache: OrderedDict[tuple[str, int, int, int], tuple[bytes, str]] = OrderedDict()
        self._cached_bytes = 0
        self._guard = threading.Lock()

    def image(self, split: str, sample_id: str, width: int, height: int) -> tuple[bytes, str]:
        """See graybox.snapshot.Images."""
        row = self._row(split, sample_id)
        key = (split, row, width, height)
        with self._guard:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        encoded = encode(shrunk(self._picture(split, row), width, height), thumbnail=bool(width or height))
        with self._guard:
            if key not in self._cache:
                self._cache[key] = encoded
                self._cached_bytes += len(encoded[0])
            while self._cached_bytes > CACHE_BYTES:
                _, (old, _) = self._cache.popitem(last=False)
                self._cached_bytes -= len(old)
        return encoded

    def key(self, split: str, sample_id: str) -> str:
        """See graybox.snapshot.Images."""
        row = self._row(split, sample_id)
        return f"{self._keys[split]}-{row}"

    def _row(self, split: str, sample_id: str) -> int:
        if split not in self._datasets:
            raise NotFound(f"no split {split!r}; there are {', '.join(self._datasets)}")
        return row_of(split, sample_id, len(self._datasets[split]))

    def _picture(self, split: str, row: int) -> Image.Image:
        dataset: Any = self._datasets[split]
        index = row
        while isinstance(dataset, Subset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        try:
            raw = raw_data(dataset, index)
            if raw is not None:
                return to_picture(raw, None)  # what is stored was not normalised yet
        except GrayboxError:
            raise
        except Exception as error:  # the data set's own loader: whatever it raises, this sample has no picture
            raise Refused(f"sample {row} of {split} cannot be read: {type(error).__name__}: {error}") from error
        return to_picture(self._loaded_by_owner(split, row), normalisation(dataset))

    def _loaded_by_owner(self, split: str, row: int) -> Any:
        loading = self._commands.submit(ReadSample(split, str(row)), actor="images", timeout=LOAD_SECONDS)
        try:
            return loading.result(LOAD_SECONDS + 5).value
        except (TimeoutError, CancelledError):
            loading.cancel()
            raise Refused(f"sample {row} of {split} could not be read in time: the trainer is busy") from None


def raw_data(dataset: Any, index: int) -> Any:
    """An item as it is stored, where that can be had without running its transforms; None where it cannot."""
    loader, samples = getattr(dataset, "loader", None), getattr(dataset, "samples", None)
    if callable(loader) and isinstance(samples, list):
        return loader(samples[index][0])
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[0][index]
    data = getattr(dataset, "data", None)
    if isinstance(data, (np.ndarray, torch.Tensor)) and len(data) == len(dataset) and 3 <= data.ndim <= 4:
        return data[index]
    return None


def normalisation(dataset: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean, standard deviation) per channel of the data set's Normalize transform, if it has one."""
    steps: list[Any] = [getattr(dataset, "transform", None)]
    while steps:
        step = steps.pop(0)
        if type(step).__name__ == "Normalize" and hasattr(step, "mean") and hasattr(step, "std"):
            return np.asarray(step.mean, dtype=np.float64), np.asarray(step.std, dtype=np.float64)
        inner = getattr(step, "transforms", None)  # a Compose, which may hold another one
        if isinstance(inner, (list, tuple)):
            steps += inner
    return None


def to_picture(raw: Any, normalised: tuple[np.ndarray, np.ndarray] | None) -> Image.Image:
    """A picture of an item: a PIL image, [height, width], [channels, height, width] or [height, width, channels].

    Raises Refused for data that is no picture.
    """
    if isinstance(raw, Image.Image):
        if raw.mode in ("L", "RGB", "RGBA"):
            return raw
        return raw.convert("RGBA" if raw.has_transparency_data else "RGB")
    if not isinstance(raw, (np.ndarray, torch.Tensor)):
        raise Refused(f"a sample of type {type(raw).__name__} has no picture")
    values = _as_array(raw)
    if values.dtype.kind not in "buif":
        raise Refused(f"a sample of {values.dtype} has no picture")
    if values.ndim == 2:
        values = values[None]
    elif values.ndim == 3 and values.shape[0] > 4 and values.shape[2] in (1, 3, 4):
        values = values.transpose(2, 0, 1)
    if values.ndim != 3 or 0 in values.shape:
        raise Refused(f"a sample of shape {list(values.shape)} has no picture")
    if values.dtype != np.uint8:
        values = _to_bytes(values.astype(np.float64), normalised)
    if values.shape[0] in (3, 4):  # with 4 the last one says how opaque it is
        return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
    # One channel is grey; of two, or more than four, the first is shown.
    return Image.fromarray(np.ascontiguousarray(values[0]))


def _as_array(raw: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(raw, np.ndarray):
        return raw
    tensor = raw.detach().cpu()
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _to_bytes(values: np.ndarray, normalised: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    if normalised is not None and normalised[0].size in (1, values.shape[0]):
        values = values * normalised[1].reshape(-1, 1, 1) + normalised[0].reshape(-1, 1, 1)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < -0.01 or high > 1.01:
        # Of an unknown scale: show its whole range.
        values = (values - low) / ((high - low) or 1.0)
    return (values.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def shrunk(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture, made to fit width x height pixels (0: any); never enlarged."""
    wide, high = picture.size
    scale = min(width / wide if width else 1.0, height / high if height else 1.0, 1.0)
    if scale >= 1.0:
        return picture
    return picture.resize((max(1, round(wide * scale)), max(1, round(high * scale))), Image.Resampling.BILINEAR)


def encode(picture: Image.Image, *, thumbnail: bool) -> tuple[bytes, str]:
    """(bytes, media type): JPEG for a thumbnail, PNG for anything larger or transparent."""
    buffer = io.BytesIO()
    if thumbnail and max(picture.size) <= THUMBNAIL_PIXELS and picture.mode in ("L", "RGB"):
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue(), "image/jpeg"
    picture.save(buffer, "PNG")
    return buffer.getvalue(), "image/png"
