"""Samples with masks and boxes, photographs, odd items, and many who ask at once."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision import datasets, transforms
from torchvision.transforms import v2

from graybox.annotations import IGNORED, Box
from graybox.commands import ReadSample
from graybox.errors import Refused
from graybox.overlay import mask_picture, overlaid
from graybox.proto import experiment_service_pb2 as pb
from graybox.sample_images import SampleImages
from graybox.service.server import serve
from graybox.service.settings import Settings
from graybox.snapshot import SamplePicture
from graybox.store.root import Root
from tests.patience import PATIENCE
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient
from tests.test_sample_images import decoded, images_of

CHINA, FLOWER = load_sample_images().images
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def mask_of(answer: SamplePicture) -> np.ndarray:
    image = Image.open(io.BytesIO(answer.mask))
    assert (image.format, image.mode) == ("PNG", "RGBA")
    return np.asarray(image)


class Items(Dataset[Any]):
    """The items it is given; counts how often each is asked for."""

    def __init__(self, *items: Any, **kept: Any) -> None:
        self.items = items
        self.asked = [0] * len(items)
        self.__dict__.update(kept)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked[index] += 1
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


# -- photographs


@pytest.mark.parametrize("photograph", [CHINA, FLOWER], ids=["china", "flower"])
@pytest.mark.parametrize(("width", "height", "size"), [(64, 64, (64, 43)), (128, 0, (128, 85)), (400, 300, (400, 267))])
def test_photographs_are_resized_as_pillow_does_it(
    photograph: np.ndarray, width: int, height: int, size: tuple[int, int]
) -> None:
    normalised = v2.Compose(
        [v2.ToImage(), v2.RandomHorizontalFlip(0.0), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    item = (normalised(Image.fromarray(photograph)), 0)
    images, _ = images_of(Items(item, transform=normalised))
    np.testing.assert_array_equal(decoded(images.image("train", "0", 0, 0)), photograph)
    answer = images.image("train", "0", width, height)
    made = decoded(answer).astype(int)
    assert made.shape == (*size[::-1], 3)
    assert (answer.media_type == "image/jpeg") == (width <= 128)
    lossy = 5.0 if answer.media_type == "image/jpeg" else 0.0
    for filter_, tolerance in ((Image.Resampling.BILINEAR, lossy), (Image.Resampling.LANCZOS, 8.0)):
        expected = np.asarray(Image.fromarray(photograph).resize(size, filter_), dtype=int)
        assert np.abs(made - expected).mean() <= tolerance
    assert answer.note == ""


def test_a_data_set_of_files_within_wrappers_keeps_their_bits(tmp_path: Path) -> None:
    for name, photograph in (("a", CHINA), ("b", FLOWER)):
        (tmp_path / name).mkdir()
        Image.fromarray(photograph).save(tmp_path / name / "1.png")
    augmented = transforms.Compose(
        [transforms.RandomResizedCrop(32), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    folder = datasets.ImageFolder(str(tmp_path), augmented)
    images, way = images_of(ConcatDataset([Subset(folder, [1]), folder]))
    for row, photograph in enumerate((FLOWER, CHINA, FLOWER)):
        np.testing.assert_array_equal(decoded(images.image("train", str(row), 0, 0)), photograph)
    assert way.asked == []


# -- segmentation


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A folder as that of PASCAL VOC, with two photographs."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "train.txt").write_text("china\nflower\n")
    for name, photograph in (("china", CHINA), ("flower", FLOWER)):
        Image.fromarray(photograph).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
        mask = Image.fromarray(classes_of(photograph).astype(np.uint8))
        mask.putpalette(bytes(range(256)) * 3)
        mask.save(base / "SegmentationClass" / f"{name}.png")
    return tmp_path


def classes_of(photograph: np.ndarray) -> np.ndarray:
    """Some classes that follow the picture: 0, 5 and 12, and ignored at the border."""
    classes = np.select([photograph.mean(-1) > 170, photograph.mean(-1) > 90], [12, 5], 0)
    classes[:6] = classes[:, :6] = 255
    return classes


def test_voc_segmentation_shows_its_files_and_their_classes(voc: Path) -> None:
    joint = v2.Compose(
        [v2.RandomCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    images, way = images_of(datasets.VOCSegmentation(str(voc), transforms=joint))
    for row, (name, photograph) in enumerate((("china", CHINA), ("flower", FLOWER))):
        stored = np.asarray(Image.open(voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg"))
        classes = classes_of(photograph)
        expected = np.where(classes == 255, IGNORED, classes)
        for width, height in ((0, 0), (200, 200), (64, 64)):
            plain = images.image("train", str(row), width, height)
            over = images.image("train", str(row), width, height, overlay=True)
            size = decoded(plain).shape[1::-1]
            mask = mask_picture(expected, size)
            np.testing.assert_array_equal(mask_of(plain), np.asarray(mask))
            assert over.mask == plain.mask
            if width == 64:
                continue  # two JPEGs
            drawn = overlaid(Image.fromarray(decoded(plain)), mask, [], (1.0, 1.0))
            np.testing.assert_array_equal(decoded(over), np.asarray(drawn))
        np.testing.assert_array_equal(decoded(images.image("train", str(row), 0, 0)), stored)
    assert way.asked == []


def test_masks_beside_tensors_and_from_the_owner() -> None:
    pixels = torch.randint(0, 256, (3, 3, 16, 20), dtype=torch.uint8)
    masks = torch.randint(0, 4, (3, 16, 20))
    stored, way = images_of(TensorDataset(pixels, masks))
    found = stored.image("train", "2", 0, 0)
    np.testing.assert_array_equal(mask_of(found), np.asarray(mask_picture(masks[2].numpy(), (20, 16))))
    assert way.asked == []
    loaded, way = images_of(Items(*zip(pixels / 255.0, masks, strict=True)))
    assert loaded.image("train", "2", 0, 0) == found
    assert way.asked == [ReadSample("train", "2")]
    assert images_of(Items((pixels[0], 3)))[0].image("train", "0", 0, 0).mask == b""


def test_a_picture_without_a_stored_target_is_loaded_for_its_overlay() -> None:
    stored = torch.zeros(2, 3, 16, 20, dtype=torch.uint8)
    items = [(torch.ones(3, 16, 20), torch.ones(16, 20, dtype=torch.int64))] * 2
    images, way = images_of(Items(*items, data=stored))
    plain = images.image("train", "0", 0, 0)
    assert not decoded(plain).any() and plain.mask == b"" and way.asked == []
    over = images.image("train", "0", 0, 0, overlay=True)
    assert mask_of(over).any() and decoded(over).any()
    assert way.asked == [ReadSample("train", "0")]


# -- detection


def test_boxes_are_drawn_with_the_names_of_their_classes() -> None:
    picture = torch.from_numpy(CHINA.transpose(2, 0, 1).copy())
    boxes = torch.tensor([[40.0, 60, 600, 400], [float("nan"), 0, 1, 1], [500, 300, 900, 900]])
    names = ["sky", "house", "tree"]
    images, _ = images_of(Items((picture, {"boxes": boxes, "labels": torch.tensor([1, 2, 2])}), classes=names))
    for width in (0, 200, 100):
        plain, over = (images.image("train", "0", width, 0, overlay=overlay) for overlay in (False, True))
        height, wide = decoded(plain).shape[:2]
        kept = [Box(40, 60, 600, 400, 1), Box(500, 300, 640, 427, 2)]
        expected = overlaid(shrunk_photograph(wide, height), None, kept, (wide / 640, height / 427), names)
        difference = np.abs(decoded(over).astype(int) - np.asarray(expected, dtype=int))
        assert difference.mean() < (5 if width == 100 else 0.001)
        assert np.abs(decoded(over).astype(int) - decoded(plain)).max() > 100
        assert (plain.mask, plain.note) == (b"", "")
        assert over.note.startswith("boxes left out: 1 ")


def shrunk_photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(CHINA).resize((width, height), Image.Resampling.BILINEAR)


# -- odd items


class Unreadable(dict[str, Any]):
    def __contains__(self, key: object) -> bool:
        raise KeyError("the archive is closed")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (OSError("file 3.png is truncated"), "file 3.png is truncated"), ((), "answers an empty tuple"),
        (None, "type NoneType has no picture"), ((None, 1), "type NoneType"), ("a text", "type str"),
        ((torch.arange(7), 1), r"shape \[7\]"), ([[], 1], "an empty list"), (iter([1]), "has no picture"),
        (("a", "b", "c"), "type str"), ({"labels": torch.rand(4, 4)}, "an empty dict|no picture"),
        (Unreadable(image=torch.rand(4, 4)), "cannot be read: KeyError"), (torch.rand(4, 5, device="meta"), "meta"),
    ],
)  # fmt: skip
def test_an_odd_item_has_a_reason_and_the_next_one_a_picture(item: Any, reason: str) -> None:
    images, _ = images_of(Items(item, (torch.rand(4, 5),), torch.rand(4, 5), [torch.rand(4, 5), 1, 2, 3]))
    with pytest.raises(Refused, match=reason):
        images.image("train", "0", 0, 0)
    for row in "123":
        assert decoded(images.image("train", row, 0, 0, overlay=True)).shape[:2] == (4, 5)


def test_an_odd_target_costs_the_overlay_alone() -> None:
    images, _ = images_of(Items((torch.rand(4, 5), Unreadable(boxes=[[0, 0, 2, 2]]))))
    answer = images.image("train", "0", 0, 0, overlay=True)
    assert decoded(answer).shape == (4, 5, 3)
    assert answer.note == "the target cannot be read: KeyError: 'the archive is closed'"


# -- many at once


def test_a_sample_that_many_want_is_decoded_once() -> None:
    start = threading.Barrier(24)
    dataset = Items(*[(torch.full((3, 40, 50), row / 10), torch.full((40, 50), row)) for row in range(10)])
    images, _ = images_of(dataset)

    def ask(row: int) -> SamplePicture:
        start.wait(PATIENCE)
        return images.image("train", str(row), 20, 20)

    with ThreadPoolExecutor(24) as pool:
        for row in range(10):
            answers = list(pool.map(ask, [row] * 24))
            assert all(answer is answers[0] for answer in answers)
    # Building the experiment looked at the first one.
    assert dataset.asked[1:] == [1] * 9


def test_several_sizes_at_once_share_one_decoding(tmp_path: Path) -> None:
    entered, go, loads = threading.Event(), threading.Event(), []
    (tmp_path / "a").mkdir()
    Image.fromarray(CHINA).save(tmp_path / "a" / "1.png")

    def load(path: str) -> Image.Image:
        loads.append(path)
        entered.set()
        assert go.wait(PATIENCE)
        return Image.fromarray(CHINA)

    folder = datasets.ImageFolder(str(tmp_path), transforms.ToTensor())
    images, _ = images_of(folder)
    folder.loader = load
    wanted = [(size, overlay) for size in (0, 16, 64) for overlay in (False, True)]
    with ThreadPoolExecutor(len(wanted)) as pool:
        asked = [pool.submit(images.image, "train", "0", size, size, overlay=overlay) for size, overlay in wanted]
        assert entered.wait(PATIENCE)
        threading.Event().wait(0.2)  # for the others to arrive
        go.set()
        answers = [each.result(PATIENCE) for each in asked]
    assert len(loads) == 1
    assert len(images._cache.held()) == len({*images._cache.held()}) == len(wanted)
    assert images._cache.bytes == sum(len(answer.image) + len(answer.mask) for answer in answers)


def test_different_samples_are_decoded_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for row in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"{row}.png")
    together = threading.Barrier(4)

    def load(path: str) -> Image.Image:
        together.wait(PATIENCE)  # breaks unless all four are in here at once
        return Image.new("RGB", (8, 8))

    folder = datasets.ImageFolder(str(tmp_path), transforms.ToTensor())
    images, _ = images_of(folder)
    folder.loader = load
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda row: images.image("train", str(row), 0, 0).image, range(4)))


# -- over the wire


def test_masks_overlays_and_reasons_reach_a_client(tmp_path: Path) -> None:
    classes = torch.zeros(16, 20, dtype=torch.int64)
    classes[4:9, 5:15] = 3
    item = (torch.rand(3, 16, 20), classes)
    images, _ = images_of(Items(item, *[(9.0 * torch.rand(3, 16, 20), 1)] * 38, ("text", 1)))
    owner = ToyOwner(Root(tmp_path / "root"))
    backend = owner.backend()
    backend.images = images
    running = serve(backend, Settings(port=0))
    try:
        with WireClient(running.address, running.tokens.watch[0]) as client:
            check_answers(client, images)
    finally:
        running.stop(grace=0)
        owner.close()


def check_answers(client: WireClient, images: SampleImages) -> None:
    labelled, stretched, text = client.GetSamples(sample_ids=["0", "1", "39"]).samples
    expected = images.image("train", "0", 0, 0)
    assert (labelled.image, labelled.segmentation_mask) == (expected.image, expected.mask)
    assert "stretched to black and white (no Normalize)" in stretched.note and not stretched.segmentation_mask
    assert (text.image, text.note) == (b"", "") and text.error.startswith("a sample of type str has no picture")
    (over,) = client.GetSamples(sample_ids=["0"], overlay=True).samples
    assert over.image == images.image("train", "0", 0, 0, overlay=True).image != labelled.image
    page = client.GetDataSamples(records_cnt=40, include_raw_data=True, overlay=True)
    assert [bool(record.raw_data) for record in page.data_records] == [True] * 39 + [False]
    assert page.data_records[0].raw_data == images.image("train", "0", 64, 64, overlay=True).image
    assert isinstance(page, pb.DataSamplesResponse)
