"""Samples: pages of the grid, pictures, discard and restore, splits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import grpc
import numpy as np

from graybox.errors import GrayboxError, Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import ClientGone, answers, clean, note_defect
from graybox.service.owner import ask
from graybox.service.sample_edits import check_edit, command_of
from graybox.service.sample_ids import check_origin, check_samples
from graybox.snapshot import SamplePicture
from graybox.store.sample_query import SORT_COLUMNS, SampleFilter, Selection
from graybox.store.sample_table import SampleTable

_Picture = tuple[SamplePicture, str]
"""The picture, or an empty one and the reason."""
_NONE = SamplePicture(b"", "")


class _Look(NamedTuple):
    """How pictures are asked for. width, height: in pixels, 0: any."""

    width: int
    height: int
    overlay: bool


class SamplesServicer(Area):
    """Statistics come from the store; pictures from the data set, loaded by a pool of threads."""

    @answers(pb.DataSamplesResponse)
    def GetDataSamples(
        self, request: pb.GetDataSamplesRequest, context: grpc.ServicerContext
    ) -> pb.DataSamplesResponse:
        wanted = _check_page(request)
        backend = self.desk.run(request.run_id)
        samples = backend.samples
        if wanted.origin:
            check_origin(list(samples.splits), wanted.origin)
        cursor = samples.cursor()  # before anything is read
        if request.view_id:
            selection = self._view(backend, request)
        elif request.sort_by in ("", *SORT_COLUMNS):
            selection = samples.select(wanted, request.sort_by, request.descending)
        else:
            selection = _table(backend).sorted(samples.select(wanted), request.sort_by, request.descending)
        if request.cursor:
            cursor, reset, records = _changed_records(backend, selection, request)
        else:
            page = slice(request.start_index, request.start_index + request.records_cnt)
            shown = Selection(selection.split[page], selection.row[page], selection.splits)
            reset, records = False, _records(backend, shown, request)
        self._add_pictures(backend, records, request, context)
        splits = samples.splits.values()
        return pb.DataSamplesResponse(
            success=True,
            data_records=records,
            number_of_matches=len(selection),
            number_of_all_samples=sum(columns.count for columns in splits),
            number_of_discarded_samples=sum(int(np.count_nonzero(columns.discarded)) for columns in splits),
            view_id=request.view_id,
            run_id=backend.run.run_id,
            cursor=f"{backend.run.run_id}/{cursor}",
            reset=reset,
        )

    def _view(self, backend: Backend, request: pb.GetDataSamplesRequest) -> Selection:
        """What a query found, in its order or by the column that is asked for."""
        found = self.desk.views.get(request.view_id, backend.run.run_id).selection
        return _table(backend).sorted(found, request.sort_by, request.descending) if request.sort_by else found

    @answers(pb.DataEditsResponse)
    def EditDataSample(self, request: pb.DataEditRequest, context: grpc.ServicerContext) -> pb.DataEditsResponse:
        check_edit(request)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("edit samples")
        pairs = check_samples(backend.samples, request.samples_ids, request.sample_origins)
        rows = self.desk.views.get(request.view_id, backend.run.run_id).rows() if request.view_id else {}
        outcome = ask(
            self.desk,
            owner,
            context,
            command_of(request, pairs, rows, wire.class_names(backend)),
            command_id=request.command_id,
            actor=request.actor,
        )
        return pb.DataEditsResponse(
            success=True,
            message=clean(outcome.message),
            number_changed=int(outcome.value or 0),
            journal_sequence=outcome.sequence,
            run_id=backend.run.run_id,
        )

    @answers(pb.DataSplitsResponse)
    def GetDataSplits(self, request: pb.GetDataSplitsRequest, context: grpc.ServicerContext) -> pb.DataSplitsResponse:
        backend = self.desk.run(request.run_id)
        names = [clean(name) for name in backend.samples.splits]
        return pb.DataSplitsResponse(success=True, split_names=names, run_id=backend.run.run_id)

    @answers(pb.SamplesResponse)
    def GetSamples(self, request: pb.GetSamplesRequest, context: grpc.ServicerContext) -> pb.SamplesResponse:
        limits.check_count("sample_ids", len(request.sample_ids), limits.MAX_SAMPLES)
        width, height = _check_size(request.resize_width, request.resize_height)
        backend = self.desk.run(request.run_id)
        backend.need_images("see its samples")
        pairs = check_samples(backend.samples, request.sample_ids, request.sample_origins)
        pictures = self._pictures(backend, pairs, _Look(width, height, request.overlay), context)
        return pb.SamplesResponse(
            samples=[
                pb.Sample(
                    sample_id=sample,
                    origin=split,
                    image=picture.image,
                    segmentation_mask=picture.mask,
                    note=clean(picture.note),
                    error=clean(reason),
                )
                for (split, sample), (picture, reason) in zip(pairs, pictures, strict=True)
            ],
            run_id=backend.run.run_id,
        )

    # -- pictures --------------------------------------------------------------------------------

    def _add_pictures(
        self,
        backend: Backend,
        records: list[pb.DataRecord],
        request: pb.GetDataSamplesRequest,
        context: grpc.ServicerContext,
    ) -> None:
        if backend.images is not None:
            for record in records:
                record.image_key = _image_key(backend, record)
        if not request.include_raw_data:
            return
        width, height = _check_size(request.resize_width, request.resize_height)
        if not width and not height:
            width = height = limits.DEFAULT_THUMBNAIL
        pairs = [(record.origin, record.sample_id) for record in records]
        try:
            pictures = self._pictures(backend, pairs, _Look(width, height, request.overlay), context)
        except limits.TooMany as error:
            # What the page says of its samples is worth an answer without their pictures.
            pictures = [(_NONE, str(error))] * len(pairs)
        for record, (picture, reason) in zip(records, pictures, strict=True):
            record.raw_data = picture.image
            if reason:
                record.metadata["image_error"] = clean(reason)
            if picture.note:
                record.metadata["image_note"] = clean(picture.note)

    def _pictures(
        self, backend: Backend, pairs: list[tuple[str, str]], look: _Look, context: grpc.ServicerContext
    ) -> list[_Picture]:
        """One picture or reason for each sample, loaded by several threads at once.

        Raises TooMany when as many requests wait for pictures as may: the others' threads stay free.
        """

        def load(split: str, sample: str) -> _Picture:
            if not context.is_active():
                raise ClientGone("the client hung up while its pictures were loaded")
            return _picture(backend, split, sample, look)

        if backend.images is None:
            return [_picture(backend, *pair, look) for pair in pairs]  # the reason, at no cost
        with self.desk.image_gate.place():
            futures: list[Future[_Picture]] = [_submit(self.desk.image_pool.submit, load, pair) for pair in pairs]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()


def _submit(
    submit: Callable[..., Future[_Picture]], load: Callable[[str, str], _Picture], pair: tuple[str, str]
) -> Future[_Picture]:
    try:
        return submit(load, *pair)
    except RuntimeError:
        raise ClientGone("the server is stopping") from None


def _picture(backend: Backend, split: str, sample: str, look: _Look) -> _Picture:
    try:
        images = backend.need_images("see its samples")
        return images.image(split, sample, look.width, look.height, overlay=look.overlay), ""
    except GrayboxError as error:
        return _NONE, str(error)
    except Exception as error:  # the user's own data set may raise anything: logged, and told by number
        return _NONE, note_defect(f"loading sample {sample!r} of {split!r}", error)


def _image_key(backend: Backend, record: pb.DataRecord) -> str:
    try:
        return clean(backend.need_images("see its samples").key(record.origin, record.sample_id))
    except GrayboxError:
        return ""


def _check_size(width: int, height: int) -> tuple[int, int]:
    limits.check_whole("resize_width", width, 0, limits.MAX_PIXELS)
    limits.check_whole("resize_height", height, 0, limits.MAX_PIXELS)
    return width, height


def _check_page(request: pb.GetDataSamplesRequest) -> SampleFilter:
    """The filter a page is taken from. Raises for what is malformed, or asks for too much at a time."""
    limits.check_whole("start_index", request.start_index, 0)
    most = limits.MAX_RECORDS_WITH_IMAGES if request.include_raw_data else limits.MAX_RECORDS
    limits.check_whole("records_cnt", request.records_cnt, 0, most)
    _check_size(request.resize_width, request.resize_height)
    limits.check_text("sort_by", request.sort_by, limits.MAX_NAME)
    if request.view_id and request.HasField("filter"):
        raise Invalid("a view is what its query found; filter by another query, within_view_id of this one")
    limits.check_text("cursor", request.cursor, limits.MAX_NAME)
    if request.cursor and (request.start_index or request.sort_by or request.descending):
        raise Invalid("with a cursor samples come as they changed; leave start_index, sort_by and descending out")
    return _filter(request.filter)


def _filter(wanted: pb.SampleFilter) -> SampleFilter:
    given = {field.name for field, _ in wanted.ListFields()}
    limits.check_text("filter.origin", wanted.origin, limits.MAX_NAME)
    limits.check_text("filter.id_contains", wanted.id_contains, limits.MAX_NAME)
    limits.check_count("filter.labels", len(wanted.labels), limits.MAX_CLASSES)
    limits.check_count("filter.predictions", len(wanted.predictions), limits.MAX_CLASSES)
    return SampleFilter(
        origin=wanted.origin,
        discarded=wanted.discarded if "discarded" in given else None,
        wrong=wanted.wrong if "wrong" in given else None,
        min_loss=limits.check_not_nan("filter.min_loss", wanted.min_loss) if "min_loss" in given else None,
        max_loss=limits.check_not_nan("filter.max_loss", wanted.max_loss) if "max_loss" in given else None,
        labels=tuple(wanted.labels),
        predictions=tuple(wanted.predictions),
        id_contains=wanted.id_contains,
    )


def _table(backend: Backend) -> SampleTable:
    return SampleTable(list(backend.samples.splits.values()), wire.class_names(backend))


def _changed_records(
    backend: Backend, selection: Selection, request: pb.GetDataSamplesRequest
) -> tuple[str, bool, list[pb.DataRecord]]:
    """(a cursor to go on with, whether it begins anew, the records of those that changed since the one before)."""
    owner, _, position = request.cursor.rpartition("/")
    known = position if owner == backend.run.run_id else "of another run"
    changes = backend.samples.changed_since(known, selection, request.records_cnt)
    records = _records(backend, changes.selection, request)
    settled = backend.samples.settled(changes)
    return changes.cursor, changes.reset, [record for record, keep in zip(records, settled, strict=True) if keep]


def _records(backend: Backend, selection: Selection, request: pb.GetDataSamplesRequest) -> list[pb.DataRecord]:
    """The records of these samples, in their order."""
    names = wire.class_names(backend)
    splits = [backend.samples.splits[name] for name in selection.splits]
    found = [
        wire.data_record(splits[int(split)], int(row), names)
        for split, row in zip(selection.split, selection.row, strict=True)
    ]
    if request.with_history:
        for record in found:
            encounters, losses = backend.samples.splits[record.origin].losses_of(int(record.sample_id))
            record.loss_history.encounters.extend(encounters.tolist())
            record.loss_history.losses.extend(losses.tolist())
    return found
