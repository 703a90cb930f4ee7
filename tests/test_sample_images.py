"""Pictures of samples: as they are stored, without augmentation; never a change in the training's bits."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import datasets, transforms
from torchvision.transforms import v2

from graybox import sample_images
from graybox.commands import Command, Outcome, ReadSample
from graybox.errors import NotFound, Refused
from graybox.inspection import read_activations, read_sample, read_weights
from graybox.launch import Training, launch
from graybox.sample_images import SampleImages, encode, shrunk
from graybox.snapshot import SamplePicture
from tests.small_experiments import Augmented, DropNet, toy_experiment, whole_state
from tests.small_networks import differences, random_state


class Direct:
    """The way to an owner that answers at once, or never."""

    def __init__(self, dataset: Any, answers: bool = True) -> None:
        self.dataset = dataset
        self.answers = answers
        self.asked: list[Command] = []

    def submit(self, command: Command, **_: Any) -> Future[Outcome]:
        self.asked.append(command)
        future: Future[Outcome] = Future()
        if self.answers and isinstance(command, ReadSample):
            try:
                future.set_result(Outcome("", value=self.dataset[int(command.sample_id)]))
            except Exception as error:
                future.set_exception(Refused(f"sample {command.sample_id} failed to load: {error}"))
        return future


def images_of(dataset: Any, answers: bool = True) -> tuple[SampleImages, Direct]:
    way = Direct(dataset, answers)
    return SampleImages(toy_experiment(train_dataset=dataset), way), way


def decoded(answer: SamplePicture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.image)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of one class: colour, grey and transparent."""
    (tmp_path / "images" / "cat").mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for name, mode, shape in (("a", "RGB", (40, 60, 3)), ("b", "L", (40, 60)), ("c", "RGBA", (40, 60, 4))):
        pixels = numbers.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels, mode).save(tmp_path / "images" / "cat" / f"{name}.png")
    return tmp_path / "images"


def test_an_image_folders_original_without_augmentation(folder: Path) -> None:
    flipped = transforms.Compose(
        [transforms.RandomHorizontalFlip(1.0), transforms.ToTensor(), transforms.Normalize(3 * [0.5], 3 * [0.2])]
    )
    dataset = datasets.ImageFolder(str(folder), flipped)
    images, way = images_of(dataset)
    for row, name in enumerate("abc"):
        expected = np.asarray(Image.open(folder / "cat" / f"{name}.png").convert("RGB"))
        answer = images.image("train", str(row), 0, 0)
        assert answer[1] == "image/png"
        np.testing.assert_array_equal(decoded(answer), expected)
    assert way.asked == []
    within, _ = images_of(Subset(Subset(dataset, [2, 1]), [1]))
    np.testing.assert_array_equal(decoded(within.image("train", "0", 0, 0)), decoded(images.image("train", "1", 0, 0)))


def test_thumbnails_fit_and_are_small(folder: Path) -> None:
    images, _ = images_of(datasets.ImageFolder(str(folder)))
    data, kind, mask, note = images.image("train", "0", 32, 32)
    assert (mask, note) == (b"", "")
    assert (kind, Image.open(io.BytesIO(data)).size) == ("image/jpeg", (32, 21))
    assert Image.open(io.BytesIO(images.image("train", "0", 200, 200)[0])).size == (60, 40)  # never enlarged
    assert shrunk(Image.new("L", (1000, 2)), 10, 10).size == (10, 1)
    assert encode(Image.new("RGB", (129, 5)), thumbnail=True)[1] == "image/png"
    assert encode(Image.new("RGBA", (5, 5)), thumbnail=True)[1] == "image/png"


def test_a_loaded_sample_is_shown_without_its_normalisation() -> None:
    class Own(Dataset[Any]):
        transform = v2.Compose([v2.Compose([v2.ToImage(), v2.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])])])

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return (pixels - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
                :, None, None
            ], 0

    pixels = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0))
    images, way = images_of(Own())
    shown = decoded(images.image("train", "1", 0, 0))
    np.testing.assert_allclose(shown, pixels.permute(1, 2, 0).numpy() * 255, atol=0.51)
    assert way.asked == [ReadSample("train", "1")]


def test_stored_arrays_are_shown_as_they_are_stored() -> None:
    class Stored(Dataset[Any]):
        """As torchvision's CIFAR-10 and MNIST keep theirs."""

        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])

        def __init__(self, data: Any) -> None:
            self.data = data

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> Any:
            return torch.zeros(1, 4, 4), 0

    colour = np.random.default_rng(1).integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(images_of(Stored(colour))[0].image("train", "2", 0, 0)), colour[2])
    grey = torch.from_numpy(colour[..., 0].copy())
    np.testing.assert_array_equal(decoded(images_of(Stored(grey))[0].image("train", "1", 0, 0)), grey[1].numpy())
    scaled = Stored(colour.transpose(0, 3, 1, 2) / 255.0)  # not normalised yet either
    np.testing.assert_array_equal(decoded(images_of(scaled)[0].image("train", "0", 0, 0)), colour[0])


def test_unknown_and_unreadable_samples_are_named(folder: Path) -> None:
    images, _ = images_of(datasets.ImageFolder(str(folder)))
    (folder / "cat" / "b.png").write_bytes(b"broken")
    with pytest.raises(Refused, match="sample 1 of train cannot be read: UnidentifiedImageError"):
        images.image("train", "1", 0, 0)
    for sample_id in ("3", "-1", "x", "", "1" * 30):
        with pytest.raises(NotFound, match="ids run from 0 to 2"):
            images.image("train", sample_id, 0, 0)
    with pytest.raises(NotFound, match="no split 'dev'; there are train, val"):
        images.key("dev", "0")
    assert images.key("train", "0") != images.key("train", "1") != images.key("val", "1")
    features, _ = images_of(TensorDataset(torch.rand(3, 7), torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(Refused, match=r"a sample of shape \[7\] has no picture"):
        features.image("train", "0", 0, 0)


def test_the_cache_is_bounded_and_forgets_the_oldest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = images_of(datasets.ImageFolder(str(folder)))
    sizes = [len(images.image("train", str(row), 0, 0).image) for row in range(3)]
    monkeypatch.setattr(sample_images, "CACHE_BYTES", sizes[0] + sizes[1])
    fresh, _ = images_of(datasets.ImageFolder(str(folder)))
    first = fresh.image("train", "0", 0, 0)
    fresh.image("train", "1", 0, 0)
    assert fresh.image("train", "0", 0, 0) is first
    fresh.image("train", "2", 0, 0)
    assert fresh._cache.bytes <= sizes[0] + sizes[1]
    assert [wanted.row for wanted in fresh._cache.held()] == ([0, 2] if sizes[2] <= sizes[1] else [2])
    monkeypatch.setattr(sample_images, "CACHE_BYTES", 10)
    tiny, _ = images_of(datasets.ImageFolder(str(folder)))
    assert tiny.image("train", "0", 0, 0).image and not tiny._cache.held() and tiny._cache.bytes == 0


def test_a_busy_trainer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_images, "LOAD_SECONDS", -4.9)
    images, _ = images_of(Augmented(5), answers=False)
    with pytest.raises(Refused, match="sample 2 of train could not be read in time: the trainer is busy"):
        images.image("train", "2", 0, 0)


@pytest.fixture
def training(root: Path) -> Iterator[Training]:
    made = launch(toy_experiment(train_dataset=Augmented(24)), root_directory=root)
    yield made
    made.close()


def test_looking_never_changes_the_trainings_bits(training: Training, tmp_path: Path) -> None:
    trainer, session = training.trainer, training.trainer.session
    stop, seen = threading.Event(), []

    def look() -> None:
        row = 0
        while not stop.is_set():
            seen.append(training.images.image("train", str(row % 24), 16 + row % 7, 16))
            row += 1

    looking = threading.Thread(target=look)
    looking.start()
    while session.step < 40 or len(seen) < 20:
        trainer.tick()
    # The last picture may still wait for the owner.
    stop.set()
    while looking.is_alive():
        trainer._apply_waiting()
        looking.join(0.01)
    other = launch(toy_experiment(train_dataset=Augmented(24)), root_directory=tmp_path / "other")
    try:
        while other.trainer.session.step < session.step:
            other.trainer.tick()
        assert differences(whole_state(other.trainer.session), whole_state(session)) == []
    finally:
        other.close()


def test_reading_from_the_model_leaves_no_trace(training: Training) -> None:
    trainer, session = training.trainer, training.trainer.session
    for _ in range(3):
        trainer.tick()
    model = session.network
    assert isinstance(model, DropNet)
    before, drawn = whole_state(session), random_state()
    found = read_activations(session, "conv", "train", "3")
    assert found.shape == (4, 2, 2) and found.dtype == np.float32
    sample, _ = read_sample(session, "train", "3")
    with torch.no_grad():
        np.testing.assert_allclose(found, torch.nn.Conv2d.forward(model.conv, sample[None])[0].numpy(), rtol=1e-6)
    weights = read_weights(model, "0", "weight")
    np.testing.assert_array_equal(weights, model.conv.weight.detach().numpy())
    weights += 1
    assert differences(before, whole_state(session)) == [] and differences(drawn, random_state()) == []
    for wrong in (("nowhere", "train", "3"), ("conv", "dev", "3"), ("conv", "train", "24")):
        with pytest.raises(NotFound):
            read_activations(session, *wrong)
    with pytest.raises(NotFound, match="has no 'gain'; it has weight, bias"):
        read_weights(model, "conv", "gain")
