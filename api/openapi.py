"""The OpenAPI 3.1 document: problem answers, the job spec as request body, and what every operation may answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.problems import MEDIA_TYPE, Problem

_REF = "#/components/schemas/{model}"
_DESCRIPTIONS = {
    400: "The request cannot be read",
    401: "No API key, or one that is not valid",
    404: "There is no such thing in the project",
    408: "The body did not arrive in time",
    409: "The state does not allow it, or the same request is in flight",
    413: "The body is over the limit",
    415: "The body is not of the right type",
    416: "The file does not have that range",
    422: "The request is wrong; all problems are in `errors`",
    500: "Something went wrong on our side",
    503: "Something that the request needs is down; try again",
}
_ALWAYS = (500, 503)
_DESCRIPTION = """Aligns text-to-image flow models with E-GRPO.

Every answer that is not 2xx or 3xx is `application/problem+json` (RFC 9457) with `code`, `request_id` and `retryable`.
Times are RFC 3339 in UTC; durations end in `_seconds`; ids are prefixed and sort by age.
"""

REPLAYED_HEADER = {
    "Idempotency-Replayed": {
        "description": "`true` when this is the stored answer of an earlier request with the same key",
        "schema": {"type": "string", "enum": ["true"]},
    }
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of an operation: these statuses, and those that any may have."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}}}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": content}
        for status in dict.fromkeys((*statuses, *_ALWAYS))
    }


def file_responses(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of a download."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": "The whole file", "content": content},
        206: {"description": "The range asked for", "content": content},
        304: {"description": "It is what `If-None-Match` names"},
        **problems(401, 404, 416, 422),
    }


def json_request_body(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the request body of an operation that parses it itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def install(app: FastAPI, bodies: tuple[type[BaseModel], ...]) -> None:
    """Makes the application describe itself, with the models that no endpoint declares."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, bodies: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, openapi_version="3.1.0", description=_DESCRIPTION, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    models: tuple[type[BaseModel], ...] = (Problem, *bodies)
    for model in models:
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    # Bad input is a Problem, never the framework's own shape.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document
