"""Targets of segmentation and detection, as the data sets around write them, against arrays computed another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from graybox.annotations import IGNORED, MAX_BOXES, NO_CLASS, Box, annotations_of

SIZE = (12, 8)
"""Width and height of the picture."""
CLASSES = np.random.default_rng(0).integers(0, 21, (8, 12))


def mask_of(target: Any) -> np.ndarray | None:
    return annotations_of(target, SIZE).mask


def boxes_of(target: Any, size: tuple[int, int] = (100, 80)) -> list[tuple[Any, ...]]:
    return [tuple(box) for box in annotations_of(target, size).boxes]


# -- class maps


@pytest.mark.parametrize(
    "target",
    [
        CLASSES, CLASSES.astype(np.uint8), torch.from_numpy(CLASSES), torch.from_numpy(CLASSES)[None],
        CLASSES[..., None], CLASSES.astype(np.float32), Image.fromarray(CLASSES.astype(np.uint8)),
        tv_tensors.Mask(torch.from_numpy(CLASSES)),
        Image.fromarray(CLASSES.astype(np.int32)), Image.fromarray(CLASSES.astype(np.uint16)),
        {"mask": CLASSES}, {"labels": torch.from_numpy(CLASSES), "pixel_values": torch.rand(3, 8, 12)},
        {"masks": CLASSES}, {"masks": CLASSES[None]}, (7, Image.fromarray(CLASSES.astype(np.uint8))),
        {"image": 1, "target": {"segmentation": CLASSES}}, [CLASSES, {"boxes": torch.zeros(0, 4)}],
    ],
)  # fmt: skip
def test_a_class_for_every_pixel(target: Any) -> None:
    found = mask_of(target)
    assert found is not None and found.dtype == np.int32
    np.testing.assert_array_equal(found, CLASSES)


def test_a_palette_keeps_its_numbers() -> None:
    image = Image.fromarray(CLASSES.astype(np.uint8), "L")
    image.putpalette(bytes(range(63)))
    assert image.mode == "P"
    np.testing.assert_array_equal(mask_of(image), CLASSES)


def test_what_is_ignored_and_what_is_only_yes_or_no() -> None:
    odd = np.zeros((8, 12), dtype=np.int64)
    odd[0, :5] = [255, -1, -100, 254, 2**40]
    assert mask_of(odd)[0, :6].tolist() == [IGNORED, IGNORED, IGNORED, 254, 2**31 - 1, 0]  # type: ignore[index]
    for dtype in (np.uint8, np.int16, np.uint16, np.int64, np.uint64, np.float32):
        bordered = CLASSES.copy()
        bordered[0] = 255
        np.testing.assert_array_equal(mask_of(bordered.astype(dtype)), np.where(bordered == 255, IGNORED, CLASSES))
    assert mask_of(np.full((8, 12), 2**63, np.uint64)).max() == 2**31 - 1  # type: ignore[union-attr]
    yes = np.where(CLASSES > 9, 255, 0)
    for target in (
        yes,
        yes.astype(np.uint8),
        CLASSES > 9,
        Image.fromarray(CLASSES > 9),
        (CLASSES > 9).astype(np.float32),
    ):
        np.testing.assert_array_equal(mask_of(target), CLASSES > 9)


def test_smaller_maps_of_the_same_proportions() -> None:
    assert mask_of(np.ones((80, 120), int)) is not None
    for shape, size in (((7, 7), (224, 224)), ((94, 125), (500, 375)), ((375, 500), (341, 256))):
        assert annotations_of(np.ones(shape, int), size).mask is not None
    for shape, size in (((3, 3), (224, 224)), ((3, 4), (100, 75)), ((8, 8), (500, 500)), ((50, 50), (60, 50))):
        assert annotations_of(np.ones(shape, int), size).mask is None


@pytest.mark.parametrize(
    "target",
    [
        None, 3, 2.5, "cat", b"cat", torch.tensor(3), torch.rand(8, 12), torch.zeros(3, 8, 12, dtype=torch.int64),
        torch.zeros(4, 5, dtype=torch.int64), torch.zeros(12, dtype=torch.int64), torch.zeros(0, 12, dtype=torch.int64),
        np.full((8, 12), np.nan), np.full((8, 12), 1e300), np.zeros((8, 12), np.complex64), Image.new("RGB", SIZE),
        np.full((8, 12), "a"), [], {}, {"labels": torch.tensor([1, 2])}, [1, 2, 3],
        {"labels": {"labels": {"mask": None}}},
        object(), torch.zeros(8, 12, dtype=torch.int64, device="meta"), {"masks": "a"}, {"masks": torch.zeros(2, 5, 5)},
    ],
)  # fmt: skip
def test_other_targets_say_nothing(target: Any) -> None:
    found = annotations_of(target, SIZE)
    assert (found.mask, found.boxes, found.note) == (None, [], "")


def test_masks_of_objects_lie_above_each_other_in_their_class() -> None:
    masks = torch.zeros(2, 8, 12, dtype=torch.uint8)
    masks[0, 2:6, 1:9] = 1
    masks[1, 4:7, 5:11] = 1
    expected = np.zeros((8, 12), dtype=np.int32)
    expected[2:6, 1:9] = 7
    expected[4:7, 5:11] = 3
    target = {"boxes": torch.tensor([[1.0, 2, 9, 6], [5, 4, 11, 7]]), "labels": torch.tensor([7, 3]), "masks": masks}
    for given_ in (masks, masks.bool(), masks[:, None] * 0.9, tv_tensors.Mask(masks)):
        found = annotations_of({**target, "masks": given_}, SIZE)
        np.testing.assert_array_equal(found.mask, expected)
        assert found.boxes == [Box(1, 2, 9, 6, 7), Box(5, 4, 11, 7, 3)]
    unlabelled = mask_of({"masks": masks})
    assert unlabelled is not None and unlabelled[5, 6] == 2 and unlabelled[3, 2] == 1
    alone = mask_of({"masks": masks[:1], "labels": [7]})
    assert alone is not None and alone.max() == 7


# -- boxes

CORNERS = torch.tensor([[10.0, 20.0, 50.0, 60.0], [0.0, 0.0, 99.5, 79.0]])
EXPECTED = [(10.0, 20.0, 50.0, 60.0), (0.0, 0.0, 99.5, 79.0)]


def converted(form: str) -> tv_tensors.BoundingBoxes:
    boxes = tv_tensors.BoundingBoxes(CORNERS, format="XYXY", canvas_size=(80, 100))
    return functional.convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat[form])


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_every_format_of_torchvision(form: str) -> None:
    boxes = converted(form)
    for target in ({"boxes": boxes, "labels": torch.tensor([3, 0])}, {"bbox": boxes, "labels": [3, 0]}):
        found = boxes_of(target)
        np.testing.assert_allclose([box[:4] for box in found], EXPECTED, atol=1e-4)
        assert [box[4] for box in found] == [3, 0]
    assert [box[4] for box in boxes_of(boxes)] == [NO_CLASS, NO_CLASS]


def test_boxes_of_a_larger_canvas_are_scaled() -> None:
    boxes = tv_tensors.BoundingBoxes(CORNERS, format="XYXY", canvas_size=(160, 400))
    np.testing.assert_allclose([box[:4] for box in boxes_of(boxes)], CORNERS.numpy() * [0.25, 0.5, 0.25, 0.5])


def test_the_ways_of_other_data_sets() -> None:
    box, label = (10.0, 20.0, 50.0, 60.0), 5
    relative = torch.tensor([[0.3, 0.5, 0.4, 0.5]])
    for target in (
        {"boxes": [[10, 20, 50, 60]], "labels": [5]},  # lists
        {"boxes": np.asarray([[10, 20, 50, 60]]), "labels": np.asarray([5])},
        [{"bbox": [10, 20, 40, 40], "category_id": 5, "segmentation": [[1, 2, 3, 4]]}],  # COCO
        {"image_id": 9, "annotations": [{"bbox": [10, 20, 40, 40], "category_id": 5}]},
        [{"bbox": [10, 20, 50, 60], "truncated": 0.0, "label": 5}],  # KITTI
        {"objects": {"bbox": [[10, 20, 40, 40]], "category": [5], "id": [1]}},  # Hugging Face
        {"pixel_values": 1, "labels": {"boxes": relative, "class_labels": [5], "size": [80, 100]}},  # DETR
        {"bbox": torch.tensor([[10, 20, 40, 40]]), "labels": torch.tensor([5])},  # WIDERFace
        {"bbox": torch.tensor([10, 20, 40, 40]), "labels": [torch.tensor(5)]},
        (5, {"boxes": [torch.tensor([10, 20, 50, 60])], "labels": torch.tensor([5.0])}),
    ):  # fmt: skip
        (found,) = boxes_of(target)
        np.testing.assert_allclose(found[:4], box, atol=1e-4, err_msg=str(target))
        assert found[4:] == (label, ""), target
    bounds = {"xmin": "10", "ymin": "20", "xmax": "50", "ymax": "60"}
    voc = {"annotation": {"object": [{"name": "dog", "bndbox": bounds}]}}
    assert boxes_of(voc) == [(*box, NO_CLASS, "dog")]
    assert boxes_of({"boxes": [box], "labels": ["dog"]}) == [(*box, NO_CLASS, "dog")]


def test_bad_boxes_are_left_out_or_cut_off_and_counted() -> None:
    nan, inf = float("nan"), float("inf")
    table = [
        [-5, -5, 20, 20], [90, 70, 500, 500], [nan, 0, 1, 1], [0, 0, inf, 5], [50, 50, 10, 60], [50, 50, 60, 10],
        [200, 0, 300, 5], [-30, 0, -10, 5], [5, 5, 5, 9],
    ]  # fmt: skip
    found = annotations_of({"boxes": torch.tensor(table), "labels": torch.arange(9)}, (100, 80))
    assert found.boxes == [Box(0, 0, 20, 20, 0), Box(90, 70, 100, 80, 1)]
    assert found.note == "boxes left out: 7 (not finite, empty, reversed, outside or beyond 1,000)"
    many = annotations_of({"boxes": torch.tensor([[1.0, 1, 2, 2]] * (MAX_BOXES + 3))}, (100, 80))
    assert len(many.boxes) == MAX_BOXES and many.left_out == 3
    fewer_labels = annotations_of({"boxes": CORNERS, "labels": [2]}, (100, 80))
    assert [box.label for box in fewer_labels.boxes] == [2, NO_CLASS]


@pytest.mark.parametrize(
    "given_",
    [torch.rand(3, 5), torch.rand(3), "abcd", [[1, 2, 3, 4], [1]], [None], [["a"] * 4], 5, torch.rand(2, 2, 4)],
)
def test_boxes_that_cannot_be_read_are_named(given_: Any) -> None:
    found = annotations_of({"boxes": given_, "labels": [1]}, (100, 80))
    assert found.boxes == []
    assert found.note == "boxes are not drawn: right are numbers [boxes, 4] in a known format, not XYXY"


def test_rotated_boxes_are_named_and_empty_ones_are_fine() -> None:
    rotated = tv_tensors.BoundingBoxes(torch.rand(2, 5), format="XYWHR", canvas_size=(80, 100))
    assert annotations_of({"boxes": rotated}, (100, 80)).note.endswith("not XYWHR")
    for empty in (torch.zeros(0, 4), [], torch.zeros(0), np.zeros((0, 4))):
        assert annotations_of({"boxes": empty, "labels": []}, (100, 80)).note == ""


KINDS = st.sampled_from([np.float32, np.int64, np.uint8, np.bool_])
NAMES = st.sampled_from(["boxes", "bbox", "labels", "masks", "mask", "target", "bndbox", "object", "class_labels"])
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
        hnp.arrays(KINDS, hnp.array_shapes(max_dims=4, max_side=6)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner)),
    max_leaves=12,
)  # fmt: skip


@given(ANYTHING, st.integers(1, 9), st.integers(1, 9))
def test_whatever_the_target_is_nothing_is_raised(target: Any, width: int, height: int) -> None:
    found = annotations_of(target, (width, height))
    for box in found.boxes:
        assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
    assert found.mask is None or (found.mask.dtype == np.int32 and found.mask.min() >= IGNORED)
