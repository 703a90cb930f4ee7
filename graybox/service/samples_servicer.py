"""Samples: pages of the grid, pictures, discard and restore, splits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import grpc

from graybox.commands import DiscardSamples
from graybox.errors import GrayboxError, Invalid, NotFound, Unsupported
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import ClientGone, answers, clean, note_defect
from graybox.service.owner import ask
from graybox.service.sample_ids import check_origin, check_samples
from graybox.store.sample_query import SORT_COLUMNS, SampleFilter, Selection

EDIT_TYPES = ("", "ADD", "OVERRIDE", "EDIT_ADD", "EDIT_OVERRIDE")

_Picture = tuple[bytes, str]
"""The picture, or nothing and the reason."""


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
        selection = samples.select(wanted, request.sort_by, request.descending)
        records = _records(backend, selection, request.start_index, request.records_cnt)
        self._add_pictures(backend, records, request, context)
        statistics = wire.sample_statistics(samples.summary())
        return pb.DataSamplesResponse(
            success=True,
            data_records=records,
            number_of_matches=len(selection),
            number_of_all_samples=statistics.number_of_samples,
            number_of_discarded_samples=statistics.number_of_discarded,
            run_id=backend.run.run_id,
        )

    @answers(pb.DataEditsResponse)
    def EditDataSample(self, request: pb.DataEditRequest, context: grpc.ServicerContext) -> pb.DataEditsResponse:
        _check_edit(request)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("discard or restore samples")
        pairs = check_samples(backend.samples, request.samples_ids, request.sample_origins)
        outcome = ask(
            self.desk,
            owner,
            context,
            DiscardSamples(tuple(pairs), discarded=request.bool_value),
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
        pictures = self._pictures(backend, pairs, width, height, context)
        return pb.SamplesResponse(
            samples=[
                pb.Sample(sample_id=sample, origin=split, image=image, error=clean(reason))
                for (split, sample), (image, reason) in zip(pairs, pictures, strict=True)
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
            pictures = self._pictures(backend, pairs, width, height, context)
        except limits.TooMany as error:
            # What the page says of its samples is worth an answer without their pictures.
            pictures = [(b"", str(error))] * len(pairs)
        for record, (image, reason) in zip(records, pictures, strict=True):
            record.raw_data = image
            if reason:
                record.metadata["image_error"] = clean(reason)

    def _pictures(
        self, backend: Backend, pairs: list[tuple[str, str]], width: int, height: int, context: grpc.ServicerContext
    ) -> list[_Picture]:
        """One picture or reason for each sample, loaded by several threads at once.

        Raises TooMany when as many requests wait for pictures as may: the others' threads stay free.
        """

        def load(split: str, sample: str) -> _Picture:
            if not context.is_active():
                raise ClientGone("the client hung up while its pictures were loaded")
            return _picture(backend, split, sample, width, height)

        if backend.images is None:
            return [_picture(backend, *pair, width, height) for pair in pairs]  # the reason, at no cost
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


def _picture(backend: Backend, split: str, sample: str, width: int, height: int) -> _Picture:
    try:
        image, _ = backend.need_images("see its samples").image(split, sample, width, height)
    except GrayboxError as error:
        return b"", str(error)
    except Exception as error:  # the user's own data set may raise anything: logged, and told by number
        return b"", note_defect(f"loading sample {sample!r} of {split!r}", error)
    return image, ""


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
    if request.view_id:
        limits.check_text("view_id", request.view_id, limits.MAX_NAME)
        raise NotFound(f"there is no view {request.view_id!r}; views come with queries, in a later version")
    if request.sort_by and request.sort_by not in SORT_COLUMNS:
        raise Invalid(f"cannot sort by {request.sort_by[:100]!r}; the columns are {', '.join(SORT_COLUMNS)}")
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


def _check_edit(request: pb.DataEditRequest) -> None:
    name = request.stat_name
    if name in ("tags", "__copy_metadata__", "__delete_metadata__") or name.startswith("tags:"):
        raise Unsupported("tags and metadata columns come with a later version; known is stat_name 'discarded'")
    if name != "discarded":
        raise Invalid(f"unknown stat_name {name[:100]!r}; known is 'discarded', with bool_value")
    if request.type not in EDIT_TYPES:
        raise Invalid(
            f"a discard has no type {request.type[:100]!r}; leave it empty, and set bool_value to false to restore"
        )
    if not request.samples_ids:
        raise Invalid("no sample was named; give at least one id in samples_ids")
    limits.check_count("samples_ids", len(request.samples_ids), limits.MAX_EDITED_SAMPLES)


def _records(backend: Backend, selection: Selection, start: int, count: int) -> list[pb.DataRecord]:
    """The records of one page, in the order of the selection."""
    names = wire.class_names(backend)
    splits = [backend.samples.splits[name] for name in selection.splits]
    page = slice(start, start + count)
    return [
        wire.data_record(splits[int(split)], int(row), names)
        for split, row in zip(selection.split[page], selection.row[page], strict=True)
    ]
