"""Which requests are told in the audit log: whatever changes something, and every download of a file."""

from __future__ import annotations

from fastapi import Request

from api.problems import request_id
from jobs.api_keys import Caller
from jobs.audit import Actor
from jobs.ids import is_any_id

DOWNLOADS = frozenset({"getAdapterFile", "getArtifact", "getCheckpointFile", "getSampleImage"})
WITHOUT_EFFECT = frozenset({"validateJob"})


def actor_of(request: Request, caller: Caller) -> Actor | None:
    """Returns who does what, None for a request that only reads."""
    action: str = request.scope["route"].operation_id
    is_read = request.method in ("GET", "HEAD") and action not in DOWNLOADS
    if is_read or action in WITHOUT_EFFECT:
        return None
    named = [value for value in request.path_params.values() if is_any_id(str(value))]
    return Actor(
        project_id=caller.project_id,
        key_id=caller.key_id,
        address=request.client.host if request.client else "unknown",
        action=action,
        path=request.url.path,
        target_id=named[-1] if named else None,
        request_id=request_id(request.scope),
    )
