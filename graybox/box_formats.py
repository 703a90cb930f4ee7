"""Boxes as data sets write them, as corners in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def format_of(boxes: Any) -> str:
    """The format that boxes themselves tell, as torchvision's BoundingBoxes do; empty for others."""
    found = getattr(boxes, "format", None)
    # An image's format is a kind of file.
    return str(getattr(found, "value", found) or "") if isinstance(boxes, torch.Tensor) else ""


def corners_of(boxes: Any, form: str, size: tuple[int, int]) -> np.ndarray | None:
    """float64 [boxes, 4]: left, top, right, bottom in pixels of a picture of size (width, height).

    form: XYXY, XYWH, CXCYWH as in torchvision, or RELATIVE, a CXCYWH in shares of the picture. Where the boxes say how
    large their picture was (`canvas_size`: height, width), they are scaled. None for another form, and for what is no
    table of numbers with four columns.
    """
    values = _table(boxes)
    if values is None:
        return None
    if form == "RELATIVE":
        values = values * np.asarray([*size, *size], dtype=np.float64)
    if form == "XYXY":
        corners = values
    elif form == "XYWH":
        corners = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)
    elif form in ("CXCYWH", "RELATIVE"):
        corners = np.concatenate([values[:, :2] - values[:, 2:] / 2, values[:, :2] + values[:, 2:] / 2], axis=1)
    else:
        return None
    canvas = getattr(boxes, "canvas_size", None)
    if isinstance(canvas, tuple) and len(canvas) == 2 and all(canvas):
        scale = (size[0] / canvas[1], size[1] / canvas[0])
        corners = corners * np.asarray([*scale, *scale], dtype=np.float64)
    return corners


def _table(boxes: Any) -> np.ndarray | None:
    """The boxes, float64 [boxes, 4]."""
    try:
        if isinstance(boxes, torch.Tensor):
            values = boxes.detach().as_subclass(torch.Tensor).double().cpu().numpy()
        else:
            values = np.asarray(
                [part.tolist() if isinstance(part, torch.Tensor) else part for part in boxes], dtype=np.float64
            )
    except (TypeError, ValueError, RuntimeError, OverflowError):  # of different lengths, or no numbers at all
        return None
    if values.shape == (4,):
        values = values[None]
    if values.ndim == 2 and values.shape[1] == 4:
        return values
    return np.zeros((0, 4)) if values.size == 0 else None
