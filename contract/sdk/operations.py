"""`egrpo_client/aio/operations.py`: a method for each operation of the OpenAPI document.

What becomes of an operation follows from its description: a page with a cursor becomes an iterator over all pages, a
file its bytes, an event stream an iterator over events, a POST with an Idempotency-Key one that may be repeated.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass

from contract.sdk.annotations import Schema, annotation, without_null
from contract.sdk.models import docstring

# What the client itself sees to: pages, reconnections, whole files, what it has already.
_OWN = {"cursor", "Idempotency-Key", "range", "if-range", "if-none-match", "If-None-Match", "redirect"}
_JSON = "application/json"
_HEAD = '''"""One method for each operation of the service."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from egrpo_client import models
from egrpo_client.aio.files import save
from egrpo_client.aio.transport import AsyncTransport
from egrpo_client.drafts import Downloaded
from egrpo_client.exchange import Event, Operation, Request, new_key, quoted, quoted_path

'''


@dataclass(frozen=True)
class Described:
    """An operation of the document, with what its method needs to know."""

    method: str
    path: str
    operation: Schema
    document: Schema

    @property
    def name(self) -> str:
        """The method's name: `createJob` is `create_job`."""
        return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", self.operation["operationId"]).lower()

    @property
    def parameters(self) -> list[Schema]:
        """The parameters that are the caller's."""
        return [each for each in self.operation.get("parameters", []) if each["name"] not in _OWN]

    @property
    def has_key(self) -> bool:
        """Whether it takes an Idempotency-Key."""
        return any(each["name"] == "Idempotency-Key" for each in self.operation.get("parameters", []))

    @property
    def answers(self) -> dict[str, Schema]:
        """The schemas of a success by media type; empty where there is no body."""
        success = next(answer for status, answer in self.operation["responses"].items() if status.startswith("2"))
        answers = {media_type: content["schema"] for media_type, content in success.get("content", {}).items()}
        # A file is bytes, whatever its type: also one of JSON.
        files = {media_type: schema for media_type, schema in answers.items() if schema.get("format") == "binary"}
        return files or answers

    @property
    def rows(self) -> Schema | None:
        """The schema of one row where the answer is a page with a cursor."""
        reference = self.answers.get(_JSON, {}).get("$ref", "")
        page = self.document["components"]["schemas"].get(reference.rpartition("/")[2], {})
        takes_cursor = any(each["name"] == "cursor" for each in self.operation.get("parameters", []))
        rows: Schema | None = page["properties"]["data"]["items"] if takes_cursor else None
        return rows

    @property
    def is_followed(self) -> bool:
        """Whether its next page may be waited for."""
        return self.rows is not None and any(each["name"] == "wait" for each in self.parameters)

    @property
    def bodies(self) -> dict[str, Schema]:
        """The schemas of the request's body by media type."""
        content = self.operation.get("requestBody", {}).get("content", {})
        return {media_type: each.get("schema", {}) for media_type, each in content.items()}

    @property
    def is_body_required(self) -> bool:
        """Whether the request cannot be without a body."""
        return bool(self.operation.get("requestBody", {}).get("required"))


def described(document: Schema) -> Iterator[Described]:
    """Yields the operations of the document, in its order."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield Described(method.upper(), path, operation, document)


def operations_text(document: Schema) -> str:
    """Returns the module, not yet formatted."""
    operations = list(described(document))
    lines = [_HEAD, "OPERATIONS = {"]
    for each in operations:
        tag = each.operation.get("tags", ["service"])[0]
        lines.append(
            f"{each.name!r}: Operation({each.operation['operationId']!r}, {each.method!r}, {each.path!r}, {tag!r}),"
        )
    lines += ["}", "", "", "class AsyncOperations(AsyncTransport):", '    """The operations of the service."""', ""]
    for each in operations:
        lines += [*_method(each), ""]
        if len(each.answers) > 1 and _JSON in each.answers:
            lines += [*_text_method(each), ""]
    return "\n".join(lines)


def _method(each: Described) -> Iterator[str]:
    answers = each.answers
    skipped = {"format"} if len(answers) > 1 else {"wait"} if each.is_followed else set()
    request = _request(each, skipped)
    if each.rows is not None:
        kind = annotation(each.rows, module="models.")
        limits = (without_null(p["schema"]) for p in each.parameters if p["name"] == "limit")
        limit = next(limits).get("maximum", 200)
        yield from _signature(each, "def", f"AsyncIterator[{kind}]", skipped)
        yield f"        return self._rows({_request(each, {*skipped, 'limit'})}, limit, {limit})"
        if each.is_followed:
            yield from ["", *_page_method(each)]
    elif "text/event-stream" in answers:
        yield from _signature(each, "def", "AsyncIterator[Event]", skipped)
        yield f"        return self._stream({request})"
    elif not answers:
        yield from _signature(each, "async def", "None", skipped)
        yield f"        await self._empty({request})"
    elif _JSON in answers:
        kind = annotation(answers[_JSON], module="models.")
        yield from _signature(each, "async def", kind, skipped)
        yield f"        answer: {kind} = await self._json({request})"
        yield "        return answer"
    else:
        yield from _signature(each, "async def", "bytes", skipped)
        yield f"        return await self._bytes({request})"
        yield from ["", *_save_method(each)]


def _page_method(each: Described) -> Iterator[str]:
    """Yields the method for one page of a list that may be waited for."""
    kind = annotation(each.answers[_JSON], module="models.")
    extra = "cursor: str | None = None"
    yield from _signature(each, "async def", kind, set(), suffix="_page", extra=extra)
    request = _request(each, set()).replace("params={", 'params={"cursor": cursor, ')
    yield f"        answer: {kind} = await self._json({request})"
    yield "        return answer"


def _save_method(each: Described) -> Iterator[str]:
    """Yields the method that brings a file to this machine."""
    parameters = ", ".join(f"{p['name']}: str" for p in each.parameters if p["in"] == "path")
    yield f"    async def save_{each.name.removeprefix('get_')}(self, {parameters}, target: Path) -> Downloaded:"
    text = "Downloads it in parts if need be, checks its sha256, and only then gives it the name of the target."
    yield from docstring(text, "        ")
    yield f"        return await save(self, {_path(each)}, target)"


def _text_method(each: Described) -> Iterator[str]:
    """Yields the method for the other formats of a list."""
    formats = next(p["schema"]["enum"] for p in each.parameters if p["name"] == "format")
    others = [value for value in formats if value != "json"]
    kind = f"Literal[{', '.join(map(repr, others))}]"
    yield from _signature(each, "async def", "str", {"format", "limit"}, suffix="_text", extra=f"format: {kind}")
    request = _request(each, {"limit"})
    yield f"        return (await self._bytes({request})).decode()"


def _signature(
    each: Described, opening: str, answer: str, skipped: set[str], *, suffix: str = "", extra: str = ""
) -> Iterator[str]:
    positional = ["self"] + [f"{p['name']}: str" for p in each.parameters if p["in"] == "path"]
    named = [extra] if extra else []
    if each.bodies:
        positional.append(_body_parameter(each))
        if len(each.bodies) > 1:
            types = ", ".join(map(repr, each.bodies))
            named.append(f"content_type: Literal[{types}] = {next(iter(each.bodies))!r}")
    for parameter in each.parameters:
        if parameter["in"] == "path" or parameter["name"] in skipped:
            continue
        kind = annotation(without_null(parameter["schema"]), module="models.")
        is_needed = parameter.get("required")
        named.append(f"{_python_name(parameter['name'])}: {kind}" + ("" if is_needed else " | None = None"))
    if each.has_key:
        named.append("idempotency_key: str | None = None")
    everything = [*positional, *(["*", *named] if named else [])]
    yield f"    {opening} {each.name}{suffix}({', '.join(everything)}) -> {answer}:"
    yield from docstring(_told(each, skipped), "        ")


def _told(each: Described, skipped: set[str]) -> str:
    """Returns what the docstring says: the operation, and every parameter that the document says something of."""
    text = str(each.operation.get("description") or each.operation.get("summary", each.name))
    told = {p["name"]: p.get("description") for p in each.parameters if p["name"] not in skipped}
    lines = [f"    {_python_name(name)}: {' '.join(words.split())}" for name, words in told.items() if words]
    return "\n\n".join([text, "\n".join(["Args:", *lines])]) if lines else text


def _body_parameter(each: Described) -> str:
    kinds = [annotation(schema, module="models.") for type_, schema in each.bodies.items() if type_ == _JSON]
    kinds += ["bytes"] if set(each.bodies) - {_JSON} else []
    return f"body: {' | '.join(kinds)}" + ("" if each.is_body_required else " | None = None")


def _path(each: Described) -> str:
    path = re.sub(r"\{(\w+)\}", r"{quoted(\1)}", each.path).replace("{quoted(path)}", "{quoted_path(path)}")
    return f'f"{path}"' if "{" in path else f'"{path}"'


def _request(each: Described, skipped: set[str]) -> str:
    arguments = [repr(each.method), _path(each)]
    query = _mapping(each, "query", skipped)
    headers = _mapping(each, "header", skipped)
    if each.has_key:
        headers = [*headers, '"Idempotency-Key": idempotency_key or new_key()']
    arguments += [f"params={{{', '.join(query)}}}"] if query else []
    arguments += [f"headers={{{', '.join(headers)}}}"] if headers else []
    if each.bodies:
        arguments.append("body=body")
        arguments += ["content_type=content_type"] if len(each.bodies) > 1 else []
    return f"Request({', '.join(arguments)})"


def _mapping(each: Described, place: str, skipped: set[str]) -> list[str]:
    return [
        f'"{p["name"]}": {_python_name(p["name"])}'
        for p in each.parameters
        if p["in"] == place and p["name"] not in skipped
    ]


def _python_name(name: str) -> str:
    python = re.sub(r"\W", "_", name).lower()
    return f"{python}_" if keyword.iskeyword(python) else python
