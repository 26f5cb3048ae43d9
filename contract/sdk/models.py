"""`egrpo_client/models.py`: a TypedDict for each object of the OpenAPI document, an alias for each other component."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterator

from contract.sdk.annotations import Schema, annotation, model_name

_HEAD = '''"""The shapes of what is sent and received: JSON objects as they are, with types.

An answer may have fields that are not here: a newer service says more.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict
'''
_WIDTH = 116


def models_text(document: Schema) -> str:
    """Returns the module, not yet formatted."""
    parts = [_HEAD]
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append("\n".join(_model(model_name(name), schema)))
    return "\n\n".join(parts) + "\n"


def comment(text: str, indent: str = "") -> Iterator[str]:
    """Yields the text as lines of a comment."""
    yield from textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )


def docstring(text: str, indent: str) -> list[str]:
    """Returns the text as a docstring, its paragraphs kept."""
    whole = "\n\n".join(_filled(part, _WIDTH - len(indent) - 2) for part in text.split("\n\n")).replace("\\", "\\\\")
    closing = f"\n{indent}" if "\n" in whole else ""
    return [f'{indent}"""{textwrap.indent(whole, indent).strip()}{closing}"""']


def _filled(part: str, width: int) -> str:
    """Returns a paragraph in lines of that width; of a section like `Args:`, each entry for itself."""
    if not part.startswith("Args:\n"):
        return textwrap.fill(" ".join(part.split()), width)
    head, *entries = part.split("\n")
    return "\n".join([head, *(textwrap.fill(each, width, subsequent_indent=" " * 8) for each in entries)])


def _model(name: str, schema: Schema) -> Iterator[str]:
    if schema.get("type") != "object" or "properties" not in schema:
        yield from comment(schema.get("description", ""))
        yield f"{name} = {annotation(schema)}"
        return
    if not all(each.isidentifier() and not keyword.iskeyword(each) for each in schema["properties"]):
        yield from _call(name, schema)
        return
    yield f"class {name}(TypedDict):"
    yield from docstring(schema.get("description") or f"A page of {name.removesuffix('List')}.", "    ")
    yield ""
    for field, one in schema["properties"].items():
        yield from comment(one.get("description", ""), "    ")
        yield f"    {field}: {_field(annotation(one), field in schema.get('required', ()))}"


def _call(name: str, schema: Schema) -> Iterator[str]:
    """Yields a TypedDict with names that Python does not take as attributes."""
    required = schema.get("required", ())
    fields = [
        f"{field!r}: {_field(annotation(one), field in required)!r}" for field, one in schema["properties"].items()
    ]
    yield f"{name} = TypedDict({name!r}, {{{', '.join(fields)}}})"


def _field(kind: str, is_required: bool) -> str:
    return kind if is_required else f"NotRequired[{kind}]"
