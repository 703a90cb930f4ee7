"""Plain HTTP routes beside Dash: rows of the sample grid, and pictures."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.samples_query import BadQuery, page_from, request_from
from graybox.proto import experiment_service_pb2 as pb

_KEPT_BYTES = 32 * 1024 * 1024
_MAX_SIZE = 1024
_PICTURES_AT_ONCE = 6
"""Requests for pictures under way at the backend, which answers eight and sends the others away."""
_SIGNATURES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG", "image/png"))


class PictureCache:
    """The pictures shown last, so that a second tab does not ask the backend again. Bounded in bytes."""

    def __init__(self, capacity: int = _KEPT_BYTES) -> None:
        self._capacity = capacity
        self._held: OrderedDict[tuple[str, ...], bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, ...]) -> bytes | None:
        """The picture, or None."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: tuple[str, ...], picture: bytes) -> None:
        """Keep a picture; the ones longest unused go."""
        self._bytes += len(picture) - len(self._held.pop(key, b""))
        self._held[key] = picture
        while self._bytes > self._capacity and self._held:
            self._bytes -= len(self._held.popitem(last=False)[1])


def register(server: FastAPI, hub: Hub) -> None:
    """Add the routes."""
    pictures = PictureCache()
    places = asyncio.Semaphore(_PICTURES_AT_ONCE)

    @server.get("/api/samples")
    async def samples(request: Request) -> Response:
        try:
            wanted = request_from(dict(request.query_params))
            wanted.run_id = run_id = await hub.focus(wanted.run_id)
            response = await hub.ask(run_id, "GetDataSamples", wanted)
        except BadQuery as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except CallFailed as failure:
            # Gone is a view that the backend no longer keeps: its query can be asked again.
            status = 410 if failure.missing and wanted.view_id else 503
            return JSONResponse({"error": str(failure)}, status_code=status, headers={"cache-control": "no-store"})
        if not response.success:
            return JSONResponse({"error": response.message}, status_code=409)
        return JSONResponse(page_from(response, run_id, hub.class_names(run_id)), headers={"cache-control": "no-store"})

    @server.get("/thumbnail/{run_id}/{split}/{sample_id}")
    async def thumbnail(
        run_id: str, split: str, sample_id: str, key: str = "", size: int = 64, labels: bool = False
    ) -> Response:
        if not 0 <= size <= _MAX_SIZE:
            return Response(f"size is from 0 to {_MAX_SIZE} pixels", status_code=400)
        wanted = (run_id, split, sample_id, key, str(size), "labels" if labels else "")
        etag = '"' + hashlib.sha256("/".join(wanted).encode()).hexdigest()[:24] + '"'
        picture = pictures.get(wanted)
        if picture is None:
            try:
                picture = await _picture(hub, places, run_id, _request(split, sample_id, size, labels))
            except CallFailed as failure:
                return Response(str(failure), status_code=404, headers={"cache-control": "no-store"})
            pictures.put(wanted, picture)
        kind = next((kind for start, kind in _SIGNATURES if picture.startswith(start)), "application/octet-stream")
        # The key changes when the picture would, so that this address never shows another one.
        caching = "private, max-age=31536000, immutable" if key else "no-store"
        return Response(picture, media_type=kind, headers={"cache-control": caching, "etag": etag})


def _request(split: str, sample_id: str, size: int, labels: bool) -> pb.GetSamplesRequest:
    return pb.GetSamplesRequest(
        sample_ids=[sample_id], sample_origins=[split], resize_width=size, resize_height=size, overlay=labels
    )


async def _picture(hub: Hub, places: asyncio.Semaphore, run_id: str, request: pb.GetSamplesRequest) -> bytes:
    if run_id != hub.live_run:
        raise CallFailed("pictures are there while the run's backend is")
    request.run_id = run_id
    async with places:
        response = await hub.ask(run_id, "GetSamples", request)
    if not response.samples or not response.samples[0].image:
        raise CallFailed(response.samples[0].error if response.samples else "no such sample")
    return bytes(response.samples[0].image)
