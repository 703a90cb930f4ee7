"""Samples as a file: streamed from the backend to the browser, never held whole."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.proto import experiment_service_pb2 as pb

log = logging.getLogger(__name__)

EXPORT_SECONDS = 1800.0
"""How long one file may take, millions of samples over a slow line included."""
_PATH = "/api/export"


def address(request: pb.ExportSamplesRequest) -> str:
    """Where the browser gets the file from."""
    given = {"run": request.run_id, "view": request.view_id, "query": request.query, "format": request.format}
    pairs = [(name, value) for name, value in given.items() if value]
    return f"{_PATH}?{urlencode([*pairs, *(('column', name) for name in request.columns)])}"


async def announced(hub: Hub, request: pb.ExportSamplesRequest) -> pb.ExportChunk:
    """What the file will be: its name and the number of samples. Raises CallFailed where there will be none."""
    async with aclosing(_chunks(hub, request)) as chunks:
        async for chunk in chunks:
            return chunk
    raise CallFailed("the backend sent no file")


def _chunks(hub: Hub, request: pb.ExportSamplesRequest) -> AsyncGenerator[pb.ExportChunk]:
    return hub.stream(request.run_id, "ExportSamples", request, EXPORT_SECONDS)


def register(server: FastAPI, hub: Hub) -> None:
    """Add the route."""

    @server.get(_PATH)
    async def export(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return Response("This request comes from another site.", status_code=403)
        given = request.query_params
        wanted = pb.ExportSamplesRequest(
            run_id=await hub.focus(given.get("run", "")),
            view_id=given.get("view", ""),
            query=given.get("query", ""),
            format=given.get("format", ""),
            columns=given.getlist("column"),
        )
        chunks = _chunks(hub, wanted)
        try:
            first = await anext(chunks)
        except CallFailed as failure:
            status = 404 if failure.missing else 503
            return JSONResponse({"error": str(failure)}, status_code=status, headers={"cache-control": "no-store"})
        except StopAsyncIteration:
            return JSONResponse({"error": "the backend sent no file"}, status_code=503)
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(first.file_name, safe='')}",
            "cache-control": "no-store",
        }
        return StreamingResponse(_body(first, chunks), media_type=first.mime_type, headers=headers)


async def _body(first: pb.ExportChunk, chunks: AsyncGenerator[pb.ExportChunk]) -> AsyncGenerator[bytes]:
    """A failure in the middle breaks the connection off, so that the browser does not take the part for the whole."""
    yield first.data
    try:
        async for chunk in chunks:
            yield chunk.data
    except CallFailed as failure:
        log.warning("a file was broken off: %s", failure)
        raise
