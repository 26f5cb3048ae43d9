"""Files out of the store: streamed with Range and ETag, or as a signed link on the store's public endpoint.

The ETag is the sha256 of the whole file, so a download that was cut can be continued and checked.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import Header
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from api.entity_tags import matches
from api.services import Services
from jobs.errors import RangeNotSatisfiable
from jobs.store import ObjectReader

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT_TYPES = {".json": "application/json", ".png": "image/png", ".csv": "text/csv", ".txt": "text/plain"}
# Types that a browser never runs; everything else goes out as bytes.
_INERT = frozenset({*_CONTENT_TYPES.values(), "image/jpeg", "image/webp"})
MEDIA_TYPES = ("application/octet-stream", *sorted(_INERT))


@dataclass(frozen=True)
class StoredObject:
    """A file of the store as its row describes it."""

    key: str
    name: str
    size_bytes: int
    sha256: str
    content_type: str | None = None
    inline: bool = False

    @property
    def media_type(self) -> str:
        """The type to send it as."""
        wanted = self.content_type or _CONTENT_TYPES.get(PurePosixPath(self.name).suffix, "")
        return wanted if wanted in _INERT else "application/octet-stream"

    @property
    def etag(self) -> str:
        """The strong validator: its content's sha256."""
        return f'"sha256:{self.sha256}"'


class DownloadQuery(BaseModel):
    """How to get a file."""

    model_config = ConfigDict(extra="forbid")

    redirect: bool = Field(
        default=False,
        description="302 to a signed link of the object store; without a public store endpoint the file is streamed",
    )


@dataclass(frozen=True)
class Conditions:
    """The request headers that choose what of the file is sent, if anything."""

    range: str | None
    if_range: str | None
    if_none_match: str | None


def conditions_of(
    range: Annotated[str | None, Header(max_length=200)] = None,
    if_range: Annotated[str | None, Header(max_length=200)] = None,
    if_none_match: Annotated[str | None, Header(max_length=2000)] = None,
) -> Conditions:
    """Returns the conditions of a request."""
    return Conditions(range, if_range, if_none_match)


def respond(services: Services, stored: StoredObject, conditions: Conditions, *, redirect: bool = False) -> Response:
    """Returns the answer that brings the file. Called in a thread: it opens the object before the status is sent.

    Raises:
        RangeNotSatisfiable: the range begins behind the end.
        StoreUnavailable: the store does not answer.
    """
    headers = _headers(stored)
    if matches(conditions.if_none_match, stored.etag):
        return Response(status_code=304, headers=headers)
    if redirect and services.store.signs:
        return RedirectResponse(_signed_url(services, stored), 302, {"Cache-Control": "no-store"})
    wanted = conditions.range if conditions.if_range in (None, stored.etag) else None
    first, last = byte_range(wanted, stored.size_bytes) or (0, stored.size_bytes - 1)
    length = last - first + 1
    whole = wanted is None or byte_range(wanted, stored.size_bytes) is None
    headers["Content-Length"] = str(length)
    if not whole:
        headers["Content-Range"] = f"bytes {first}-{last}/{stored.size_bytes}"
    if length == 0:
        return Response(b"", 200, headers, media_type=stored.media_type)
    reader = services.store.get(stored.key, offset=first, length=length)
    return StreamingResponse(_chunks(reader), 200 if whole else 206, headers, media_type=stored.media_type)


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Returns first and last byte of a Range header, None for what may be answered with the whole file.

    Several ranges and unknown units are answered with the whole, which RFC 9110 (14.2) allows.

    Raises:
        RangeNotSatisfiable: the range begins behind the end.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    start, end = match.groups()
    if not start:
        first, last = max(size_bytes - int(end), 0), size_bytes - 1
        satisfiable = int(end) > 0 and size_bytes > 0
    else:
        first, last = int(start), min(int(end), size_bytes - 1) if end else size_bytes - 1
        if end and int(end) < int(start):
            return None
        satisfiable = first < size_bytes
    if not satisfiable:
        raise RangeNotSatisfiable(f"the file has {size_bytes} bytes", size_bytes=size_bytes)
    return first, last


def _headers(stored: StoredObject) -> dict[str, str]:
    disposition = "inline" if stored.inline else "attachment"
    digest = base64.b64encode(bytes.fromhex(stored.sha256)).decode()
    return {
        "ETag": stored.etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{digest}:",  # RFC 9530: of the whole file, whatever part is sent
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(stored.name)}",
        # Private, because it took a key to get here; a file of an id never changes except by a replayed step.
        "Cache-Control": "private, no-cache",
    }


def _signed_url(services: Services, stored: StoredObject) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", stored.name)
    return services.store.presigned_url(
        stored.key, expires_s=services.settings.presigned_seconds, filename=name, content_type=stored.media_type
    )


async def _chunks(reader: ObjectReader) -> AsyncIterator[bytes]:
    try:
        while chunk := await run_in_threadpool(reader.read):
            yield chunk
    finally:
        reader.close()
