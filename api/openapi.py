"""The OpenAPI 3.1 document: problem answers, the job spec as request body, and what every operation may answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api import scopes
from api.problems import MEDIA_TYPE, Problem
from api.webhooks.messages import MESSAGES, webhooks_section

_REF = "#/components/schemas/{model}"
_DESCRIPTIONS = {
    400: "The request cannot be read",
    401: "No API key, or one that is not valid",
    403: "The API key lacks a scope (`missing_scopes`), or a limit of the project is reached (`limit`)",
    404: "There is no such thing in the project",
    408: "The body did not arrive in time",
    409: "The state does not allow it, or the same request is in flight",
    412: "It has changed since the caller saw it",
    413: "The body is over the limit",
    415: "The body is not of the right type",
    416: "The file does not have that range",
    422: "The request is wrong; all problems are in `errors`",
    429: "Too many requests of the key, or wrong keys from the address; `Retry-After` says when",
    500: "Something went wrong on our side",
    503: "Something that the request needs is down; try again",
}
_ALWAYS = (400, 500, 503)
_DESCRIPTION = """Aligns text-to-image flow models with E-GRPO.

Every answer that is not 2xx or 3xx is `application/problem+json` (RFC 9457) with `code`, `request_id` and `retryable`.
Times are RFC 3339 in UTC; durations end in `_seconds`; ids are prefixed and sort by age.
"""

ETAG_HEADER = {
    "ETag": {
        "description": "the version, and a digest of what is shown: for `If-Match` and `If-None-Match`",
        "schema": {"type": "string", "examples": ['"12-9f86d081884c7d65"']},
    }
}
NOT_MODIFIED = {"description": "It is what `If-None-Match` names", "headers": ETAG_HEADER}
_RATE_LIMIT_HEADERS = {
    "Retry-After": {"description": "seconds until another try may pass", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "the quota `q` in `w` seconds", "schema": {"type": "string"}},
    "RateLimit": {"description": "`r` are left; whole again in `t` seconds", "schema": {"type": "string"}},
}
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


def file_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of a download of a file that may be of any of these types."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content: dict[str, Any] = dict.fromkeys(media_types, binary)
    if "application/json" in content:  # It is read as JSON by who checks it.
        content["application/json"] = {"schema": {}}
    return {
        200: {"description": "The whole file", "content": content},
        206: {"description": "The range asked for", "content": content},
        302: {"description": "A signed link, with `redirect=true`"},
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
    models: tuple[type[BaseModel], ...] = (Problem, *bodies, *MESSAGES)
    for model in models:
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    # Bad input is a Problem, never the framework's own shape.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _say_style(operation)
            if "security" in operation:
                _say_scope(operation, scopes.needed(method.upper(), path))
    document["webhooks"] = webhooks_section()
    return document


def _say_style(operation: dict[str, Any]) -> None:
    """Says how an object is written as query parameters: `metadata[ticket]=ML-88`."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query" and parameter["schema"].get("type") == "object":
            parameter.update(style="deepObject", explode=True)


def _say_scope(operation: dict[str, Any], scope: str) -> None:
    operation["security"] = [{name: [scope] for name in scheme} for scheme in operation["security"]]
    responses = {**operation["responses"], **{str(key): value for key, value in problems(403, 429).items()}}
    responses["429"]["headers"] = _RATE_LIMIT_HEADERS
    operation["responses"] = dict(sorted(responses.items()))
