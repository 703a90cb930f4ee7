"""What a data set gives, as a picture: whatever its shape, its type of numbers and their range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from graybox.errors import Refused
from graybox.grey_levels import grey_levels
from graybox.normalisation import Normalisation

PICTURE_NAMES = ("image", "images", "img", "pixel_values", "picture", "x", "input", "inputs", "data")
"""Where a sample of several named parts has its picture, the most likely name first."""
TARGET_NAMES = frozenset(
    ("label", "labels", "target", "targets", "mask", "masks", "segmentation_mask", "boxes", "bbox", "bboxes")
)
"""Named parts that say what is to be learnt: never the picture itself."""
MAX_PARTS = 16
"""So many parts of a sample are looked at; a long list is a text or a table."""
MAX_DEPTH = 2
"""Parts of parts are looked at, as of a pair of views in a dict."""

_RIGHT = (
    "a picture is a PIL image, or an array or tensor [height, width], [channels, height, width], "
    "[height, width, channels] or [channels, depth, height, width]"
)
_FEW = 4
"""An axis of at most so many entries holds channels."""


class Picture(NamedTuple):
    """image: mode "L", "RGB" or "RGBA". note: what had to be guessed to make it, for people; empty where nothing."""

    image: Image.Image
    note: str = ""


def picture_of(data: Any, normalised: Normalisation | None = None) -> Picture:
    """A picture of a sample's data. normalised: what the data set did to its values, which is taken back.

    A PIL image, an array or a tensor: [height, width], [channels, height, width], [height, width, channels], or a
    volume or clip of such, of which the middle slice is shown. Axes of at most four entries hold channels; where none
    does, the first axis of a tensor, and the odd or smallest one of the outer two of an array.
    One channel is grey; two are red and green; three are red, green and blue, and of four bytes the last one says how
    opaque it is. Of four other numbers the first three are shown, and of more than four channels the first, the middle
    and the last.
    Several rows of numbers, as signals over time, are a picture of so many pixels; a single row is none.
    Of a dict, list or tuple the first part is shown that is a picture, one with a telling name ("image") before others.

    Raises Refused for data that is no picture; whatever a user's own objects raise goes through.
    """
    return _picture(data, normalised, 0)


def _picture(data: Any, normalised: Normalisation | None, depth: int) -> Picture:
    if not isinstance(data, (Mapping, list, tuple)):
        return _single_picture(data, normalised)
    kind = type(data).__name__
    if depth > MAX_DEPTH:
        raise Refused(f"a sample of type {kind} within others has no picture; {_RIGHT}")
    reasons: list[str] = []
    for part in _parts(data):
        try:
            return _picture(part, normalised, depth + 1)
        except Refused as reason:
            reasons.append(str(reason).split(";")[0])
    if not reasons:
        raise Refused(f"an empty {kind} has no picture; {_RIGHT}")
    raise Refused(f"a {kind} has no picture in any of its parts ({', '.join(reasons[:3])}); {_RIGHT}")


def _parts(data: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    """The parts that may be the picture, the most likely first."""
    if not isinstance(data, Mapping):
        yield from data[:MAX_PARTS]
        return
    telling = [name for name in PICTURE_NAMES if name in data]
    others = [name for name in data if name not in telling and name not in TARGET_NAMES]
    for name in (telling + others)[:MAX_PARTS]:
        yield data[name]


def _single_picture(data: Any, normalised: Normalisation | None) -> Picture:
    if isinstance(data, Image.Image):
        return _of_pil(data, normalised)
    if not isinstance(data, (np.ndarray, torch.Tensor)):
        raise Refused(f"a sample of type {type(data).__name__} has no picture; {_RIGHT}")
    return _of_array(as_array(data), normalised, tensor=isinstance(data, torch.Tensor))


def _of_pil(image: Image.Image, normalised: Normalisation | None) -> Picture:
    """EXIF's orientation is left alone: neither the network nor the boxes of the target know of it."""
    if 0 in image.size:
        raise Refused(f"a sample of {image.width} x {image.height} pixels has no picture; give it at least one")
    if image.mode in ("L", "RGB", "RGBA"):
        image.load()  # what is wrong with the file is wrong here, where its sample can be named
        return Picture(image)
    if image.mode == "1":
        return Picture(image.convert("L"))
    if image.mode[0] in "IF":  # 16 or 32 bits, which `convert` would cut off at 255
        return _of_array(np.asarray(image), normalised, tensor=False)
    try:
        return Picture(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except ValueError as error:
        raise Refused(f"a sample of PIL mode {image.mode} has no picture: {error}; convert it to RGB") from None


def as_array(data: np.ndarray | torch.Tensor) -> np.ndarray:
    """The numbers of an array or tensor, on the CPU and in a type that NumPy has. Raises Refused where there are
    none (a tensor on "meta")."""
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    try:
        tensor = data.detach()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        tensor = tensor.as_subclass(torch.Tensor)
        if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
            tensor = tensor.float()  # bfloat16 and the floats of 8 bits
        return np.asarray(tensor.cpu().resolve_conj().resolve_neg().numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise Refused(f"a sample of {data.dtype} on {data.device} has no picture: {error}") from error


def _of_array(values: np.ndarray, normalised: Normalisation | None, *, tensor: bool) -> Picture:
    if values.dtype.kind not in "buif":
        raise Refused(f"a sample of {values.dtype} has no picture; {_RIGHT}, of whole or real numbers")
    planes, sliced = _planes(values, tensor=tensor)
    chosen, selected = _shown_channels(len(planes), values.dtype == np.uint8)
    levels, scaled = grey_levels(planes[chosen], None if normalised is None else normalised.of(chosen, len(planes)))
    if len(chosen) == 2:
        levels = np.concatenate([levels, np.zeros_like(levels[:1])])
    pixels = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    return Picture(Image.fromarray(np.ascontiguousarray(pixels)), "; ".join(filter(None, (sliced, selected, scaled))))


def _planes(values: np.ndarray, *, tensor: bool) -> tuple[np.ndarray, str]:
    """A view [channels, height, width] of the values, and which slice of them it is."""
    shape, note = list(values.shape), ""
    wrong = f"a sample of shape {shape} has no picture"
    if 0 in shape or values.ndim not in (2, 3, 4):
        raise Refused(f"{wrong}; {_RIGHT}")
    if values.ndim == 4:
        axis = _depth_axis(shape)
        if axis is None:
            raise Refused(f"{wrong}: none of its axes is short enough to hold channels; {_RIGHT}")
        middle = shape[axis] // 2
        values = values.take(middle, axis)
        note = f"slice {middle} of 0 to {shape[axis] - 1} is shown" if shape[axis] > 1 else ""
    if values.ndim == 2:
        values = values[None]
    elif _channels_last(values.shape, tensor=tensor):
        values = values.transpose(2, 0, 1)
    if 1 in values.shape[1:] and values.shape[1:] != (1, 1):
        raise Refused(f"{wrong}: it is a row of numbers; {_RIGHT}")
    return values, note


def _depth_axis(shape: list[int]) -> int | None:
    """Of [channels, depth, height, width], [frames, channels, height, width] or [depth, height, width, channels]: which
    axis is cut. None where no axis holds channels."""
    if shape[0] <= _FEW:
        return 1
    return 0 if shape[1] <= _FEW or shape[3] <= _FEW else None


def _channels_last(shape: tuple[int, ...], *, tensor: bool) -> bool:
    first, rows, last = shape
    if first <= _FEW or last <= _FEW:
        return first > _FEW
    if tensor:
        return False
    # Many channels in an array, which may be either way round: the picture is the square, or else has the long sides.
    if rows in (first, last) and first != last:
        return rows == first
    return last < first


def _shown_channels(count: int, bytes_: bool) -> tuple[list[int], str]:
    """Which of the channels are shown, and how that is said."""
    if count == 2:
        return [0, 1], "the 2 channels are shown as red and green"
    if count <= 3 or (count == 4 and bytes_):
        return list(range(count)), ""
    if count == 4:
        return [0, 1, 2], "the first 3 of 4 channels are shown"
    middle = (count - 1) // 2
    return (
        [0, middle, count - 1],
        f"channels 0, {middle} and {count - 1} of {count} are shown as red, green and blue",
    )
