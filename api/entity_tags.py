"""Versions of what an answer shows: `ETag`, and the conditions of requests that name one (RFC 9110, 13.1)."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header

_DIGEST_CHARS = 16

IfNoneMatchHeader = Annotated[
    str | None,
    Header(alias="If-None-Match", max_length=2000, description="An `ETag`: 304 without a body if it is still that"),
]
IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern=rf'^(\*|"[0-9]{{1,9}}(-[0-9a-f]{{{_DIGEST_CHARS}}})?")$',
        description='An `ETag`, or as `"12"` its version alone: changes that version and no other. Without it: any.',
    ),
]


def tag_of(version: int, shown: str) -> str:
    """Returns the tag of something with a version: the version, and a digest of what is shown.

    The digest is for what changes without a new version, as a place in the queue does. A condition to change the thing
    looks at the version alone.
    """
    digest = hashlib.sha256(shown.encode()).hexdigest()[:_DIGEST_CHARS]
    return f'"{version}-{digest}"'


def version_in(if_match: str | None) -> int | None:
    """Returns the version that an `If-Match` names, None for any."""
    return None if if_match in (None, "*") else int(if_match.strip('"').partition("-")[0])


def matches(if_none_match: str | None, tag: str) -> bool:
    """Returns whether one of the tags in an `If-None-Match` is this one, compared weakly as the RFC says."""
    tags = [each.strip().removeprefix("W/") for each in if_none_match.split(",")] if if_none_match else []
    return "*" in tags or tag in tags
