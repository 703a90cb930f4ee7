"""What the target of a sample says of places in its picture: a class for every pixel, and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from graybox.box_formats import corners_of, format_of
from graybox.errors import Refused
from graybox.picture import MAX_PARTS, as_array

IGNORED = -1
"""In a class map: a pixel that counts for nothing."""
NO_CLASS = -1
"""Of a box whose class is not known."""
MAX_BOXES = 1_000
"""More boxes than this hide the picture."""
MAX_STRIDE = 32
"""A class map is at most so many times smaller than the picture, else it is a table of numbers."""
MIN_SIDE = 7
"""Of a map that is not as large as the picture: fewer are the columns of a table of boxes."""

_MOST = 2**31 - 1
"""The last class; larger numbers count as it."""
_MAP_NAMES = ("mask", "segmentation_mask", "semantic_mask", "segmentation", "labels", "label")
_BOX_NAMES = ("boxes", "bbox", "bboxes")
_CLASS_NAMES = ("labels", "class_labels", "category", "category_id", "categories", "classes")
_WITHIN = ("target", "targets", "labels", "label", "annotations", "annotation", "objects", "object")


class Box(NamedTuple):
    """In pixels of the picture, left < right and top < bottom. label: NO_CLASS where it is not known; name: what the
    target itself calls the class."""

    left: float
    top: float
    right: float
    bottom: float
    label: int = NO_CLASS
    name: str = ""


@dataclass
class Annotations:
    """mask: int32 [height, width] (not always the picture's), a class each or IGNORED; None where there is none.
    left_out: how many boxes are not among `boxes`. unreadable: the formats of boxes that nobody here can read.
    failure: why the target could not be looked at, where it could not."""

    mask: np.ndarray | None = None
    boxes: list[Box] = field(default_factory=list)
    left_out: int = 0
    unreadable: set[str] = field(default_factory=set)
    failure: str = ""

    @property
    def note(self) -> str:
        """What is not drawn, for people; empty where everything is."""
        notes = [f"the target cannot be read: {self.failure}"] if self.failure else []
        if self.left_out:
            why = f"not finite, empty, reversed, outside or beyond {MAX_BOXES:,}"
            notes.append(f"boxes left out: {self.left_out} ({why})")
        if self.unreadable:
            forms = ", ".join(sorted(self.unreadable))
            notes.append(f"boxes are not drawn: right are numbers [boxes, 4] in a known format, not {forms}")
        return "; ".join(notes)


def annotations_of(target: Any, size: tuple[int, int]) -> Annotations:
    """What a target says of a picture of size (width, height).

    A class map is a PIL image of mode 1, L, P or I, or an array or tensor of whole numbers [height, width],
    [1, height, width] or [height, width, 1], as large as the picture or smaller in proportion. Negative classes and 255
    are IGNORED; but in a map of nothing else than 0 and 255 the latter is class 1.
    Boxes come as torchvision's detection gives them ({"boxes", "labels", perhaps "masks" [n, height, width]}), as
    BoundingBoxes, or as COCO, VOC, KITTI and Hugging Face list them. What is not finite, empty, reversed or outside is
    left out and noted, what is partly outside is cut off.
    Of a list or tuple all parts count. Whatever is none of this says nothing; only a user's own objects raise.
    """
    found = Annotations()
    _read(target, size, found, 0)
    return found


def _read(target: Any, size: tuple[int, int], found: Annotations, depth: int) -> None:
    if depth > 3 or target is None or isinstance(target, (str, bytes, int, float)):
        return
    if isinstance(target, Mapping):
        _read_mapping(target, size, found, depth)
    elif isinstance(target, (list, tuple)):
        if _are_objects(target):
            _read_objects(target, size, found)
        else:
            for part in target[:MAX_PARTS]:
                _read(part, size, found, depth + 1)
    elif format_of(target):
        _add_boxes(target, format_of(target), (), size, found)
    elif found.mask is None:
        found.mask = _class_map(target, size)


def _read_mapping(target: Mapping[Any, Any], size: tuple[int, int], found: Annotations, depth: int) -> None:
    labels = next((target[name] for name in _CLASS_NAMES if name in target), ())
    labels = () if isinstance(labels, Mapping) else labels
    maps = [target[name] for name in _MAP_NAMES if name in target]
    if "masks" in target:
        found.mask = found.mask if found.mask is not None else _of_instances(target["masks"], _listed(labels), size)
        maps.append(target["masks"])
    for given in maps:
        found.mask = found.mask if found.mask is not None else _class_map(given, size)
    for name in _BOX_NAMES:
        if name in target:
            form = "XYXY" if name == "boxes" else "XYWH"
            if "class_labels" in target:  # as DETR's processor of Hugging Face, which names them so
                form = "RELATIVE"
            _add_boxes(target[name], format_of(target[name]) or form, _listed(labels), size, found)
            break
    for name in _WITHIN:
        if isinstance(target.get(name), (Mapping, list, tuple)):
            _read(target[name], size, found, depth + 1)


def objects_in(target: Any) -> tuple[int, list[int]] | None:
    """How many boxes a target lists, whatever their format, and the classes of those whose class is a number; None
    where it is none that lists boxes. Looks at no picture, and only a user's own objects raise."""
    return _objects_in(target, 0)


def _objects_in(target: Any, depth: int) -> tuple[int, list[int]] | None:
    if depth > 3:
        return None
    if isinstance(target, (list, tuple)):
        if not _are_objects(target):
            return None
        numbers = [_class_number(_label_of(entry)) for entry in target]
        return len(target), [number for number in numbers if number != NO_CLASS]
    if not isinstance(target, Mapping):
        return (len(target) if target.dim() == 2 else 1, []) if format_of(target) else None
    for name in _BOX_NAMES:
        if name in target:
            corners = corners_of(target[name], "XYXY", (1, 1))
            if corners is None:
                return None
            labels = next((target[key] for key in _CLASS_NAMES if key in target), ())
            numbers = [_class_number(label) for label in _listed(labels)]
            return len(corners), [number for number in numbers if number != NO_CLASS]
    within = (_objects_in(target[name], depth + 1) for name in _WITHIN if name in target)
    return next((found for found in within if found is not None), None)


# -- class maps ---------------------------------------------------------------------------------


def _class_map(target: Any, size: tuple[int, int]) -> np.ndarray | None:
    values = _whole_numbers(target)
    if values is None:
        return None
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    if values.ndim != 2 or not _in_proportion((values.shape[1], values.shape[0]), size):
        return None
    if values.dtype == np.bool_:
        return values.astype(np.int32)
    if values.max() == 255 and np.isin(values, (0, 255)).all():
        return np.asarray(values == 255, dtype=np.int32)
    if values.dtype == np.uint64:
        values = np.minimum(values, np.uint64(_MOST))
    numbers = values.astype(np.int64)
    numbers[(numbers < 0) | (numbers == 255)] = IGNORED
    return numbers.clip(IGNORED, _MOST).astype(np.int32)


def _whole_numbers(target: Any) -> np.ndarray | None:
    """Numbers that may be classes, of any shape but without an axis of none."""
    if isinstance(target, Image.Image):
        if target.mode not in ("1", "L", "P", "I") and not target.mode.startswith("I;16"):
            return None
        return np.asarray(target)
    if not isinstance(target, (np.ndarray, torch.Tensor)):
        return None
    try:
        values = as_array(target)
    except Refused:
        return None
    if values.dtype.kind not in "buif" or values.size == 0:
        return None
    if values.dtype.kind == "f":  # as a loss of two classes wants them
        whole = np.isfinite(values) & (np.abs(values) <= _MOST)
        if not whole.all() or (values != np.floor(values)).any():
            return None
        return values.astype(np.int64)
    return values


def _in_proportion(mask: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Whether a map (width, height) covers a picture (width, height) pixel for pixel, or by a stride of its own."""
    if mask == picture:
        return True
    (wide, high), (width, height) = mask, picture
    large_enough = min(mask) >= MIN_SIDE and wide * MAX_STRIDE >= width and high * MAX_STRIDE >= height
    return large_enough and abs(wide * height - high * width) <= max(width, height)


def _of_instances(masks: Any, labels: Sequence[Any], size: tuple[int, int]) -> np.ndarray | None:
    """A class map of masks [n, height, width] or [n, 1, height, width], one of each object, the later above the
    earlier; without labels every one of several objects has a class of its own."""
    if not isinstance(masks, (np.ndarray, torch.Tensor)):
        return None
    try:
        values = as_array(masks)
    except Refused:
        return None
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3 or values.dtype.kind not in "buif":
        return None
    if not _in_proportion((values.shape[2], values.shape[1]), size):
        return None
    classes = [_class_number(label) for label in labels]
    if len(classes) != len(values) or NO_CLASS in classes:
        if len(values) == 1:
            return None  # a class map with an axis too many
        classes = list(range(1, len(values) + 1))
    made = np.zeros(values.shape[1:], dtype=np.int32)
    for mask, label in zip(values, classes, strict=True):
        # Probabilities, as a network answers them, are of the object from one half on.
        made[mask > 0.5 if mask.dtype.kind == "f" else mask != 0] = label
    return made


# -- boxes --------------------------------------------------------------------------------------


def _are_objects(target: Sequence[Any]) -> bool:
    return bool(target) and all(
        isinstance(entry, Mapping) and ("bbox" in entry or "bndbox" in entry) for entry in target
    )


def _read_objects(target: Sequence[Mapping[Any, Any]], size: tuple[int, int], found: Annotations) -> None:
    """Objects in a list: COCO's {"bbox": x, y, width, height}, KITTI's {"bbox": corners, "truncated"}, and VOC's
    {"bndbox": {"xmin", ...}, "name"}."""
    for entry in target:
        label = _label_of(entry)
        if "bndbox" in entry:
            corners = entry["bndbox"]
            names = ("xmin", "ymin", "xmax", "ymax")
            values: Any = [corners.get(name) for name in names] if isinstance(corners, Mapping) else None
            _add_boxes([values], "XYXY", [label], size, found)
        else:
            _add_boxes([entry["bbox"]], "XYXY" if "truncated" in entry else "XYWH", [label], size, found)


def _label_of(entry: Mapping[Any, Any]) -> Any:
    return next((entry[name] for name in ("category_id", "label", "name", "type") if name in entry), NO_CLASS)


def _add_boxes(given: Any, form: str, labels: Sequence[Any], size: tuple[int, int], found: Annotations) -> None:
    corners = corners_of(given, form, size)
    if corners is None:
        found.unreadable.add(form)
        return
    width, height = size
    within = corners.clip(0, [width, height, width, height])
    usable = np.isfinite(corners).all(axis=1) & (within[:, 0] < within[:, 2]) & (within[:, 1] < within[:, 3])
    rows = np.flatnonzero(usable)[: MAX_BOXES - len(found.boxes)]
    found.left_out += len(corners) - len(rows)
    for row in rows.tolist():
        label = labels[row] if row < len(labels) else NO_CLASS
        name = label if isinstance(label, str) else ""
        left, top, right, bottom = within[row].tolist()
        found.boxes.append(Box(left, top, right, bottom, _class_number(label), name))


def _listed(labels: Any) -> Sequence[Any]:
    if isinstance(labels, (np.ndarray, torch.Tensor)):
        try:
            values = as_array(labels)
        except Refused:
            return ()
        return list(values.tolist()) if values.ndim == 1 else ()
    return labels if isinstance(labels, (list, tuple)) else ()


def _class_number(label: Any) -> int:
    try:
        number = int(label)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return NO_CLASS
    return number if 0 <= number <= _MOST else NO_CLASS
