"""Classes of pixels and boxes, drawn: as a picture of their own, and over the sample's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from graybox.annotations import IGNORED, NO_CLASS, Box

OPACITY = 0.5
"""Of classes over a picture."""
_HATCH = 3
"""Pixels of one stripe."""
_GREYS = (96, 176)
"""The stripes of what is ignored."""
_GOLDEN = 0.6180339887498949
"""Hues this far apart, in turns around the circle, stay far apart however many there are."""
_FEW = 65_536
"""Classes that a table of colours holds."""
_MAX_NAME = 24
"""Letters of a class's name that are drawn."""
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def class_colours(classes: np.ndarray) -> np.ndarray:
    """uint8 [..., 3]: the colour of each class, int [...], the same whenever and wherever it is asked for."""
    numbers = np.maximum(classes, 0).astype(np.float64)
    hue = (numbers * _GOLDEN % 1.0)[..., None]
    # Red, green and blue rise and fall a third of the circle apart.
    wave = np.abs((hue + np.asarray([0.0, 2 / 3, 1 / 3])) % 1.0 * 6.0 - 3.0) - 1.0
    # Every third round is darker, so that two hues that come close do not look the same.
    value = np.where(numbers % 3 == 2, 0.7, 1.0)[..., None]
    levels: np.ndarray = wave.clip(0.0, 1.0) * value * 255.0
    return levels.round().astype(np.uint8)


def _opaque(classes: np.ndarray) -> np.ndarray:
    """uint8 [..., 4]: the colours of classes, but nothing at all of class 0."""
    pixels = np.full((*classes.shape, 4), 255, dtype=np.uint8)
    pixels[..., :3] = class_colours(classes)
    pixels[classes == 0] = 0
    return pixels


def mask_picture(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """An RGBA picture of size (width, height) of a class map, int32 [any height, any width]: class 0 is transparent,
    the others have their colour, IGNORED is hatched in two greys. Of another size the nearest pixel is taken, so that
    classes do not mix."""
    width, height = size
    # The pixel of the map that the middle of each pixel lies in, in whole numbers: nothing is rounded.
    rows, columns = (
        (2 * np.arange(wanted) + 1) * given // (2 * wanted)
        for wanted, given in zip((height, width), mask.shape, strict=True)
    )
    classes = mask[rows[:, None], columns]
    most = int(classes.max())
    # To look a colour up is faster than to work it out.
    pixels = _opaque(np.arange(max(most, 0) + 1))[classes] if most < _FEW else _opaque(classes)
    ignored = classes == IGNORED
    if ignored.any():
        stripes = np.where((np.arange(height)[:, None] + np.arange(width)) // _HATCH % 2, *_GREYS).astype(np.uint8)
        pixels[ignored, :3] = stripes[ignored][:, None]
        pixels[ignored, 3] = 255
    return Image.fromarray(pixels)


def overlaid(
    picture: Image.Image,
    mask: Image.Image | None,
    boxes: Sequence[Box],
    scale: tuple[float, float],
    class_names: Sequence[str] = (),
) -> Image.Image:
    """A new picture, RGB or RGBA, with a mask_picture of the same size and boxes above it.

    scale: (across, down), what the boxes are multiplied with. A box has the colour of its class, and the class's name
    (else its number) in its upper left corner where there is room for it.
    """
    transparent = picture.mode == "RGBA"
    made = picture.convert("RGBA")
    if mask is not None:
        pale = mask.copy()
        pale.putalpha(mask.getchannel("A").point([round(alpha * OPACITY) for alpha in range(256)]))
        made = Image.alpha_composite(made, pale)
    if boxes:
        draw = ImageDraw.Draw(made)
        side = min(made.size)
        line = max(1, round(side / 160))
        font = ImageFont.load_default(size=min(max(10, side // 24), 24))
        for box in boxes:
            _draw_box(draw, made.size, box, scale, line, font, class_names)
    return made if transparent else made.convert("RGB")


def _draw_box(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Box,
    scale: tuple[float, float],
    line: int,
    font: _Font,
    class_names: Sequence[str],
) -> None:
    across, down = scale
    # The pixels that the box covers; one that is thinner than a pixel still shows.
    left, top = min(int(box.left * across), size[0] - 1), min(int(box.top * down), size[1] - 1)
    right, bottom = max(left, round(box.right * across) - 1), max(top, round(box.bottom * down) - 1)
    red, green, blue = class_colours(np.asarray(box.label)).tolist() if box.label != NO_CLASS else (255, 255, 255)
    thick = line - 1
    for side in (
        (left, top, right, min(top + thick, bottom)),
        (left, max(bottom - thick, top), right, bottom),
        (left, top, min(left + thick, right), bottom),
        (max(right - thick, left), top, right, bottom),
    ):  # an outline of Pillow's is off by a pixel where the box is as small as its line
        draw.rectangle(side, fill=(red, green, blue, 255))
    text = _class_name(box, class_names)
    if not text:
        return
    _, _, to_right, to_bottom = draw.textbbox((left + line + 1, top + line), text, font=font)
    if to_right + line > right or to_bottom - top > (bottom - top) / 3:
        return  # it would hide what the box is about
    draw.rectangle((left, top, to_right + 1, to_bottom + 1), fill=(red, green, blue, 255))
    bright = 0.3 * red + 0.59 * green + 0.11 * blue > 128
    draw.text((left + line + 1, top + line), text, fill=(0, 0, 0, 255) if bright else (255, 255, 255, 255), font=font)


def _class_name(box: Box, class_names: Sequence[str]) -> str:
    text = box.name
    if not text and box.label != NO_CLASS:
        text = class_names[box.label] if box.label < len(class_names) else str(box.label)
    # One line, in letters that every font has.
    return (
        "".join(letter for letter in text if letter.isprintable())
        .encode("latin-1", "replace")
        .decode("latin-1")[:_MAX_NAME]
    )
