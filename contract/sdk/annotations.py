"""Python types for JSON schemas."""

from __future__ import annotations

import json
from typing import Any

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def annotation(schema: Schema, *, module: str = "") -> str:
    """Returns the type of a value of the schema, as it is written in an annotation.

    Args:
        schema: what FastAPI and pydantic write: references, unions, enumerations, lists, objects.
        module: what goes before the name of a model, as in `models.`.
    """
    if "$ref" in schema:
        return module + model_name(schema["$ref"].removeprefix(_REF))
    if "const" in schema:
        return _literal([schema["const"]])
    if "enum" in schema:
        return _literal(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [annotation(each, module=module) for each in schema[key]]
            return " | ".join(dict.fromkeys(sorted(kinds, key=lambda kind: kind == "None")))
    return _of_type(schema, module)


def model_name(name: str) -> str:
    """Returns the class for a component: `JobBody`; for a page, `List_JobBody_`, it is `JobBodyList`."""
    inner = name.removeprefix("List_").removesuffix("_")
    return f"{inner[0].upper()}{inner[1:]}List" if name.startswith("List_") else name.replace("-", "")


def without_null(schema: Schema) -> Schema:
    """Returns the schema of an optional parameter without its null."""
    kinds = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else schema


def _of_type(schema: Schema, module: str) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_SCALARS[each] for each in kind)
    if kind == "array":
        return f"list[{annotation(schema['items'], module=module) if 'items' in schema else 'Any'}]"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"dict[str, {annotation(values, module=module) if isinstance(values, dict) and values else 'Any'}]"
    return _SCALARS.get(str(kind), "Any")


def _literal(values: list[Any]) -> str:
    return f"Literal[{', '.join(json.dumps(value) if isinstance(value, str) else repr(value) for value in values)}]"
