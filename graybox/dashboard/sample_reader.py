"""One sample with all that is known of it: its losses over time, and how its picture was made."""

from __future__ import annotations

from dataclasses import dataclass

from graybox.dashboard.cache import AnswerCache
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.proto import experiment_service_pb2 as pb

_DRAWN = ("mask", "boxes")
_GLANCE_PIXELS = 64
_GLANCE_SECONDS = 600.0


@dataclass(frozen=True)
class SampleDetail:
    """A sample, with its loss_history. note: how its picture was made, where that had to be guessed. error: why there
    is none. labels_drawn: whether masks or boxes can be drawn over it."""

    record: pb.DataRecord
    note: str = ""
    error: str = ""
    labels_drawn: bool = False


class SampleReader:
    """Reads single samples. Looks at a picture once in a while only: a data set may take long to load it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._glances = AnswerCache()

    async def read(self, run_id: str, split: str, sample_id: str) -> SampleDetail:
        """Raises CallFailed, where there is no such sample too."""
        record = await self._record(run_id, split, sample_id)
        drawn = record.label_kind in _DRAWN
        if not record.image_key:
            return SampleDetail(record)
        try:
            glance = await self._glance(run_id, record)
        except CallFailed as failure:
            return SampleDetail(record, error=str(failure), labels_drawn=drawn)
        untold = not record.label_kind and record.label < 0
        return SampleDetail(record, glance.note, glance.error, drawn or untold or bool(glance.segmentation_mask))

    async def _record(self, run_id: str, split: str, sample_id: str) -> pb.DataRecord:
        request = pb.GetDataSamplesRequest(records_cnt=1, run_id=run_id, with_history=True)
        request.filter.origin = split
        if sample_id.isdecimal() and int(sample_id) < 2**31:
            # Those of a split come in the order of their numbers: this finds one at once, however many there are.
            request.start_index = int(sample_id)
            found = await self._hub.ask(run_id, "GetDataSamples", request)
            if found.data_records and found.data_records[0].sample_id == sample_id:
                return _only(found)
        request.start_index = 0
        request.filter.id_contains, request.sort_by = sample_id, "sample_id"
        found = await self._hub.ask(run_id, "GetDataSamples", request)
        # Of all numbers that contain this one it is the least.
        if not found.data_records or found.data_records[0].sample_id != sample_id:
            raise CallFailed(f"there is no sample {sample_id} in {split}", missing=True)
        return _only(found)

    async def _glance(self, run_id: str, record: pb.DataRecord) -> pb.Sample:
        async def fetch() -> pb.Sample:
            request = pb.GetSamplesRequest(
                sample_ids=[record.sample_id],
                sample_origins=[record.origin],
                resize_width=_GLANCE_PIXELS,
                resize_height=_GLANCE_PIXELS,
                run_id=run_id,
            )
            response = await self._hub.ask(run_id, "GetSamples", request)
            if not response.samples:
                raise CallFailed("the backend sent no picture")
            sample = response.samples[0]
            return pb.Sample(note=sample.note, error=sample.error, segmentation_mask=sample.segmentation_mask[:1])

        key = (run_id, record.origin, record.sample_id, record.image_key)
        return (await self._glances.get(key, _GLANCE_SECONDS, fetch)).value


def _only(found: pb.DataSamplesResponse) -> pb.DataRecord:
    record = found.data_records[0]
    assert isinstance(record, pb.DataRecord)
    return record
