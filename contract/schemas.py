"""What changed between two JSON schemas, for somebody who knows only the old one.

It depends on the direction. What is *sent* to the service must still be accepted: a narrower schema breaks. What is
*received* from it must still be expected: a wider one breaks. Descriptions, examples and defaults are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SHAPES = ("pattern", "multipleOf", "format", "uniqueItems", "propertyNames")
# A value of the key's type is also one of these types.
_ALSO = {"integer": ("number",)}
ANY = "any"
# Under this key a resolved component carries its name.
_NAME = "$component"


@dataclass(frozen=True, order=True)
class Change:
    """One change that breaks clients: of what, at which JSON pointer within it, and how."""

    place: str
    pointer: str
    what: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.place, self.pointer)))}: {self.what}"


class Comparison:
    """Compares schemas of an old and a new document, in one direction, each component once."""

    def __init__(self, old_document: Schema, new_document: Schema, *, is_sent: bool) -> None:
        self._old_schemas: Schema = old_document.get("components", {}).get("schemas", {})
        self._new_schemas: Schema = new_document.get("components", {}).get("schemas", {})
        self._is_sent = is_sent
        self._seen: set[tuple[str | None, str | None]] = set()

    def changes(self, old: Schema, new: Schema, place: str, pointer: str = "") -> Iterator[Change]:
        """Yields what breaks."""
        old_variants, new_variants = _variants(old, self._old_schemas), _variants(new, self._new_schemas)
        required, offered = (old_variants, new_variants) if self._is_sent else (new_variants, old_variants)
        for label in required:
            match = _matching(label, offered) or self._fitting(label, required[label], offered, place)
            if match is None:
                what = f"no longer accepts {label}" if self._is_sent else f"may now be {label}"
                yield Change(place, pointer, what)
            elif ANY not in (label, match):
                before, after = (label, match) if self._is_sent else (match, label)
                yield from self._within(old_variants[before], new_variants[after], place, pointer)

    def _within(self, old: Schema, new: Schema, place: str, pointer: str) -> Iterator[Change]:
        names = (old.get(_NAME), new.get(_NAME))
        if all(names):  # What happens to a component is said of the component, not of all that use it.
            if names in self._seen:
                return
            self._seen.add(names)
            place, pointer = f"{names[0]} {'sent' if self._is_sent else 'received'}", ""
        yield from self._values(old, new, place, pointer)
        if self._is_sent:
            yield from _tighter(old, new, place, pointer)
        yield from self._fields(old, new, place, pointer)
        for key in ("items", "additionalProperties"):
            before, after = old.get(key, {}), new.get(key, {})
            if isinstance(before, dict) and isinstance(after, dict):
                yield from self.changes(before, after, place, f"{pointer}/*")
            elif self._is_sent and before is not False and after is False:
                yield Change(place, pointer, "takes no further fields now")

    def _fitting(self, label: str, schema: Schema, offered: dict[str, Schema], place: str) -> str | None:
        """Returns the label of an object that goes by another name: one that breaks nothing, else the first."""
        candidates = [name for name in offered if label.startswith("object") and name.startswith("object")]
        seen = set(self._seen)
        for name in candidates:
            before, after = (schema, offered[name]) if self._is_sent else (offered[name], schema)
            breaks = any(self._within(before, after, place, ""))
            self._seen = set(seen)
            if not breaks:
                return name
        return next((name for name in candidates if " of type " not in name), None)

    def _values(self, old: Schema, new: Schema, place: str, pointer: str) -> Iterator[Change]:
        before, after = _allowed(old), _allowed(new)
        required, offered = (before, after) if self._is_sent else (after, before)
        if offered is None:
            return
        if required is None:
            what = (
                f"only accepts {_listed(offered)} now" if self._is_sent else f"may now be more than {_listed(offered)}"
            )
            yield Change(place, pointer, what)
            return
        for value in sorted(required - offered):
            yield Change(place, pointer, f"no longer accepts {value}" if self._is_sent else f"may now be {value}")

    def _fields(self, old: Schema, new: Schema, place: str, pointer: str) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
        for name in before.keys() - after.keys():
            yield Change(place, f"{pointer}/{name}", "is gone")
        newly = (
            (required_after - required_before) if self._is_sent else (required_before & after.keys()) - required_after
        )
        for name in newly:
            yield Change(place, f"{pointer}/{name}", "is required now" if self._is_sent else "may be left out now")
        for name in before.keys() & after.keys():
            yield from self.changes(before[name], after[name], place, f"{pointer}/{name}")


def _variants(schema: Schema, schemas: Schema) -> dict[str, Schema]:
    """Returns the alternatives of a schema by what a reader tells them apart: type, or the discriminating value."""
    schema = _resolved(schema, schemas)
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives is not None:
        found = [pair for each in alternatives for pair in _variants(each, schemas).items()]
        labels = [label for label, _ in found]
        return {_told_apart(label, one, labels.count(label) > 1): one for label, one in found}
    types = schema.get("type", "object" if "properties" in schema else _type_of_values(schema))
    if types != "object":
        return dict.fromkeys(types if isinstance(types, list) else [types], schema)
    discriminating = _allowed(schema.get("properties", {}).get("type", {}))
    labels = [f"object of type {value}" for value in sorted(discriminating or ())] or ["object"]
    return dict.fromkeys(labels, schema)


def _told_apart(label: str, schema: Schema, is_one_of_several: bool) -> str:
    return f"{label} {schema.get(_NAME, ','.join(schema.get('properties', ())))}" if is_one_of_several else label


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    while "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        schema = {**schemas[name], _NAME: name}
    return schema


def _matching(label: str, offered: dict[str, Schema]) -> str | None:
    return next((name for name in (label, *_ALSO.get(label, ()), ANY) if name in offered), None)


def _allowed(schema: Schema) -> set[str] | None:
    """Returns the values of an enumeration as JSON texts; None where the schema is none."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else {json.dumps(value) for value in values}


def _type_of_values(schema: Schema) -> str:
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    names = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}
    return names.get(type(values[0]), ANY) if values else ANY


def _tighter(old: Schema, new: Schema, place: str, pointer: str) -> Iterator[Change]:
    for bound, is_tighter in (*((b, float.__gt__) for b in _LOWER), *((b, float.__lt__) for b in _UPPER)):
        before, after = old.get(bound), new.get(bound)
        if after is not None and (before is None or is_tighter(float(after), float(before))):
            yield Change(place, pointer, f"{bound} is {after} now")
    for shape in _SHAPES:
        if new.get(shape) is not None and new[shape] != old.get(shape):
            yield Change(place, pointer, f"{shape} is {json.dumps(new[shape])} now")


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(values))
