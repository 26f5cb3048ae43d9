"""Answers that are asked for often."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import Response
from pydantic import BaseModel


def model_response(model: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """Returns the answer that shows a model, which was checked when it was made.

    Given the model itself, the framework would check it once more, and start a thread to do so.
    """
    return Response(model.model_dump_json(), headers=headers, media_type="application/json")
