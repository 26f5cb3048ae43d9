"""The rules: what may not change in the OpenAPI document for a client that was made from an earlier one.

| of | breaks |
|---|---|
| an operation | is gone; has another operationId; needs a key now |
| a parameter | is gone; is required now; takes less than before |
| a body, a field sent | is gone; is required now; takes fewer types, values or media types; has tighter bounds |
| an answer, its headers and fields | is gone; may be left out now; may be of a type or a value that nobody knows |

New operations, optional parameters and fields, new answers that are errors: none of these breaks anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from contract.schemas import Change, Comparison, Schema

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
PROBLEM = "#/components/schemas/Problem"


def breaking_changes(old: Schema, new: Schema) -> list[Change]:
    """Returns what breaks clients of the old document, each once, in order."""
    sent, received = Comparison(old, new, is_sent=True), Comparison(old, new, is_sent=False)
    changes = set(received.changes({"$ref": PROBLEM}, {"$ref": PROBLEM}, "Problem"))
    after = _operations(new)
    for place, operation in _operations(old).items():
        if place in after:
            changes.update(_operation_changes(sent, received, operation, after[place]))
        else:
            changes.add(Change(operation["operationId"], "", "is gone"))
    return sorted(changes)


def _operations(document: Schema) -> dict[tuple[str, str], Schema]:
    """Returns the operations by method and path; what a parameter of the path is called is nobody's business."""
    return {
        (method, re.sub(r"\{[^}]*\}", "{}", path)): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    }


def _operation_changes(sent: Comparison, received: Comparison, before: Schema, after: Schema) -> Iterator[Change]:
    name = before["operationId"]
    if after["operationId"] != name:
        yield Change(name, "", f"is called {after['operationId']} now")
    if after.get("security") and not before.get("security"):
        yield Change(name, "", "needs a key now")
    yield from _parameter_changes(sent, before, after)
    yield from _body_changes(sent, before, after)
    yield from _answer_changes(received, before, after)


def _parameter_changes(sent: Comparison, before: Schema, after: Schema) -> Iterator[Change]:
    name, known, offered = before["operationId"], _parameters(before), _parameters(after)
    for place in known.keys() - offered.keys():
        yield Change(f"{name} {place}", "", "is gone")
    for place, parameter in offered.items():
        if parameter.get("required") and not known.get(place, {}).get("required"):
            yield Change(f"{name} {place}", "", "is required now")
        if place in known:
            yield from sent.changes(known[place].get("schema", {}), parameter.get("schema", {}), f"{name} {place}")


def _parameters(operation: Schema) -> dict[str, Schema]:
    """Returns the parameters by place and name; those of the path by their order, as nobody sees their names."""
    parameters = operation.get("parameters", [])
    in_path = [each for each in parameters if each["in"] == "path"]
    numbered = {f"path {number}": each for number, each in enumerate(in_path, start=1)}
    return numbered | {f"{each['in']} {each['name']}": each for each in parameters if each["in"] != "path"}


def _body_changes(sent: Comparison, before: Schema, after: Schema) -> Iterator[Change]:
    place, known, offered = f"{before['operationId']} body", before.get("requestBody"), after.get("requestBody")
    if offered is None:
        if known is not None:
            yield Change(place, "", "is gone")
        return
    if offered.get("required") and not (known or {}).get("required"):
        yield Change(place, "", "is required now")
    if known is not None:
        yield from _content_changes(sent, place, known, offered)


def _answer_changes(received: Comparison, before: Schema, after: Schema) -> Iterator[Change]:
    for status, known in before.get("responses", {}).items():
        if status >= "400":
            continue
        place, offered = f"{before['operationId']} answer {status}", after.get("responses", {}).get(status)
        if offered is None:
            yield Change(place, "", "is gone")
        else:
            gone = known.get("headers", {}).keys() - offered.get("headers", {}).keys()
            yield from (Change(place, "", f"header {name} is gone") for name in gone)
            yield from _content_changes(received, place, known, offered)


def _content_changes(comparison: Comparison, place: str, known: Schema, offered: Schema) -> Iterator[Change]:
    for media_type, content in known.get("content", {}).items():
        other: Schema | None = offered.get("content", {}).get(media_type)
        if other is None:
            yield Change(place, "", f"{media_type} is gone")
        else:
            yield from comparison.changes(content.get("schema", {}), other.get("schema", {}), place)
