"""Pictures of samples, before augmentation, for whoever looks at them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, NamedTuple

from PIL import Image

from graybox.annotations import Annotations, annotations_of
from graybox.calling import input_and_target
from graybox.commands import Commands, ReadSample
from graybox.errors import GrayboxError, NotFound, Refused
from graybox.experiment import Experiment
from graybox.normalisation import normalisation
from graybox.overlay import mask_picture, overlaid
from graybox.picture import Picture, picture_of
from graybox.picture_cache import PictureCache, SingleFlight
from graybox.sample_interventions import row_of
from graybox.snapshot import SamplePicture
from graybox.stored_items import Place, StoredItem, place_of, stored_item

THUMBNAIL_PIXELS = 128
CACHE_BYTES = 64 * 2**20
JPEG_QUALITY = 85
LOAD_SECONDS = 30.0


class _Wanted(NamedTuple):
    split: str
    row: int
    width: int
    height: int
    overlay: bool


class _Decoded(NamedTuple):
    picture: Picture
    annotations: Annotations


class SampleImages:
    """See graybox.snapshot.Images. Reads an item directly where the data set has it as it is stored (see
    graybox.stored_items); otherwise the owner loads the sample between two steps, since that may draw random numbers.
    So it does where an overlay is wanted and only the picture is stored, not its target.

    Who asks for a sample that is being decoded already waits for it. Nothing here holds a lock while it decodes: as
    many different samples are decoded at once as there are threads that ask.
    """

    def __init__(self, experiment: Experiment, commands: Commands) -> None:
        self._datasets = {split: wrapper.dataset for split, wrapper in experiment.datasets.items()}
        self._keys = {split: wrapper.fingerprint() for split, wrapper in experiment.datasets.items()}
        self._class_names = {split: wrapper.class_names() for split, wrapper in experiment.datasets.items()}
        self._commands = commands
        self._cache: PictureCache[_Wanted] = PictureCache(CACHE_BYTES)
        self._decoding: SingleFlight[tuple[str, int, bool], _Decoded] = SingleFlight()

    def image(self, split: str, sample_id: str, width: int, height: int, *, overlay: bool = False) -> SamplePicture:
        """See graybox.snapshot.Images."""
        wanted = _Wanted(split, self._row(split, sample_id), width, height, overlay)
        return self._cache.get(wanted, lambda: self._make(wanted))

    def key(self, split: str, sample_id: str) -> str:
        """See graybox.snapshot.Images."""
        row = self._row(split, sample_id)
        return f"{self._keys[split]}-{row}"

    def _row(self, split: str, sample_id: str) -> int:
        if split not in self._datasets:
            raise NotFound(f"no split {split!r}; there are {', '.join(self._datasets)}")
        return row_of(split, sample_id, len(self._datasets[split]))

    def _make(self, wanted: _Wanted) -> SamplePicture:
        with _objects_of_the_user(wanted.split, wanted.row):
            place = place_of(self._datasets[wanted.split], wanted.row)
            stored = stored_item(place)
        if stored is not None and wanted.overlay and not stored.knows_target:
            stored = None
        # One decoding for all sizes that are asked for at the same time.
        picture, annotations = self._decoding.get(
            (wanted.split, wanted.row, stored is None), lambda: self._decoded(wanted.split, wanted.row, place, stored)
        )
        image = shrunk(picture.image, wanted.width, wanted.height)
        mask = None if annotations.mask is None else mask_picture(annotations.mask, image.size)
        note = picture.note
        if wanted.overlay:
            scale = (image.width / picture.image.width, image.height / picture.image.height)
            image = overlaid(image, mask, annotations.boxes, scale, self._class_names[wanted.split])
            note = "; ".join(filter(None, (note, annotations.note)))
        data, kind = encode(image, thumbnail=bool(wanted.width or wanted.height))
        return SamplePicture(data, kind, b"" if mask is None else _png(mask), note)

    def _decoded(self, split: str, row: int, place: Place, stored: StoredItem | None) -> _Decoded:
        item = self._loaded_by_owner(split, row) if stored is None else None
        with _objects_of_the_user(split, row):
            if stored is None:
                data, target = data_and_target(item)
                picture = picture_of(data, normalisation(place.levels))
            else:
                data, target = stored.read()
                picture = picture_of(data)  # what is stored was not normalised yet
        try:
            return _Decoded(picture, annotations_of(target, picture.image.size))
        except Exception as error:  # the user's own objects: an odd target is no reason to show nothing
            return _Decoded(picture, Annotations(failure=f"{type(error).__name__}: {error}"))

    def _loaded_by_owner(self, split: str, row: int) -> Any:
        loading = self._commands.submit(ReadSample(split, str(row)), actor="images", timeout=LOAD_SECONDS)
        try:
            return loading.result(LOAD_SECONDS + 5).value
        except (TimeoutError, CancelledError):
            loading.cancel()
            raise Refused(f"sample {row} of {split} could not be read in time: the trainer is busy") from None


@contextmanager
def _objects_of_the_user(split: str, row: int) -> Iterator[None]:
    """Whatever the data set and what it answers raise means that this sample has no picture."""
    try:
        yield
    except GrayboxError:
        raise
    except Exception as error:
        raise Refused(f"sample {row} of {split} cannot be read: {type(error).__name__}: {error}") from error


def data_and_target(item: Any) -> tuple[Any, Any]:
    """What the picture and what the annotations of an item are taken from: the first and the other entries of a tuple
    or list, a dict for both, or all of it where there is no target. Raises Refused for an empty one."""
    if isinstance(item, Mapping):
        found = input_and_target(item)
        return (item if found is None else found[0]), item
    if not isinstance(item, (tuple, list)):
        return item, None
    if not item:
        raise Refused(
            f"the data set answers an empty {type(item).__name__}, which has no picture; right is (data, label)"
        )
    return item[0], tuple(item[1:])


def shrunk(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture, made to fit width x height pixels (0: any); never enlarged."""
    wide, high = picture.size
    scale = min(width / wide if width else 1.0, height / high if height else 1.0, 1.0)
    if scale >= 1.0:
        return picture
    return picture.resize((max(1, round(wide * scale)), max(1, round(high * scale))), Image.Resampling.BILINEAR)


def encode(picture: Image.Image, *, thumbnail: bool) -> tuple[bytes, str]:
    """(bytes, media type): JPEG for a thumbnail, PNG for anything larger or transparent."""
    if not (thumbnail and max(picture.size) <= THUMBNAIL_PIXELS and picture.mode in ("L", "RGB")):
        return _png(picture), "image/png"
    buffer = io.BytesIO()
    # Colours as fine as brightness: lines of one pixel keep theirs.
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue(), "image/jpeg"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # A photograph takes a third of the time that the default takes, and a tenth more bytes.
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
