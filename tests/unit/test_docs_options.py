"""docs/options.md names every option as the code has it, and the tests that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from egrpo.config import (
    DiversityRewardSpec,
    EvaluationSpec,
    ExportSpec,
    JpegRewardSpec,
    LoRASpec,
    RewardSpec,
    ShapesRewardSpec,
    TrainingSpec,
)
from egrpo.methods import METHODS, MethodSpec
from jobs.spec import Limits, Resources

ROOT = Path(__file__).parents[2]
SECTIONS: dict[str, type[BaseModel]] = {
    "`method`, of every type": METHODS["egrpo"],
    **{f"`method` of type `{name}`": kind for name, kind in METHODS.items()},
    "`training`": TrainingSpec,
    "`training.lora`": LoRASpec,
    "`reward`": RewardSpec,
    "`reward` of type `shapes`": ShapesRewardSpec,
    "`reward` of types `compressibility` and `incompressibility`": JpegRewardSpec,
    "`reward` of type `diversity`": DiversityRewardSpec,
    "`evaluation`": EvaluationSpec,
    "`export`": ExportSpec,
    "`resources`": Resources,
    "`limits`": Limits,
}
_BOUNDS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minItems": "at least {}", "maxItems": "at most {}",
}  # fmt: skip


def own_fields(title: str) -> list[str]:
    """Returns the fields of a section: what methods share is said once, and a type is said by the heading."""
    kind, names = SECTIONS[title], list(SECTIONS[title].model_fields)
    if title == "`method`, of every type":
        return list(MethodSpec.model_fields)
    shared = set(MethodSpec.model_fields) if issubclass(kind, MethodSpec) else {"type"}
    return [name for name in names if name not in shared]


def facts(kind: type[BaseModel], name: str) -> tuple[str, str]:
    """Returns what the code says of a field: its allowed values and its default, as the table has to say it."""
    if name == "type":
        return ", ".join(f"`{known}`" for known in METHODS), "`egrpo`"
    field = kind.model_fields[name]
    allowed = _allowed(kind.model_json_schema()["properties"][name])
    return allowed, "required" if field.is_required() else _value(_default(kind, name))


def _default(kind: type[BaseModel], name: str) -> Any:
    if kind.model_fields[name].default_factory is not None and kind is not RewardSpec:
        return getattr(kind(), name)
    return kind.model_fields[name].get_default(call_default_factory=True)


def _value(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    return "null" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _allowed(schema: dict[str, Any]) -> str:
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_allowed(part) for part in alternatives)
    if "$ref" in schema:
        return "a section"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{str(value).lower()}`" for value in schema.get("enum", [schema.get("const")]))
    bounds = ", ".join(form.format(_number(schema[key])) for key, form in _BOUNDS.items() if key in schema)
    if schema["type"] == "array":
        members = "sections" if schema["items"].keys() & {"$ref", "oneOf"} else _allowed(schema["items"])
        return f"list of {members}" + (f"; {bounds}" if bounds else "")
    return {"null": "null", "string": "text"}.get(schema["type"]) or f"{schema['type']} {bounds}".strip()


def rows() -> dict[tuple[str, str], list[str]]:
    """Returns the cells of every row of the document, by heading and option."""
    found: dict[tuple[str, str], list[str]] = {}
    title = ""
    for line in (ROOT / "docs/options.md").read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert (title, cells[0]) not in found, f"{title}: {cells[0]} twice"
            found[title, cells[0].strip("`")] = cells[1:]
    return found


def test_every_option_is_in_the_table_as_the_code_has_it() -> None:
    found = rows()
    expected = {(title, name): facts(SECTIONS[title], name) for title in SECTIONS for name in own_fields(title)}
    assert found.keys() == expected.keys()
    for key, (allowed, default) in expected.items():
        assert found[key][:2] == [allowed, default], f"{key}: | {allowed} | {default} |"
        assert len(found[key]) == 4, key
        assert re.fullmatch(r"`test_\w+\.py::test_\w+`", found[key][3]), f"{key} names no test"


def test_the_sections_are_all_there_are() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/options.md").read_text(), flags=re.MULTILINE)
    assert [heading for heading in headings if heading not in SECTIONS] == []


@pytest.mark.parametrize("document", ["options.md", "method.md"])
def test_the_tests_that_are_named_exist(document: str) -> None:
    named = set(re.findall(r"(test_\w+\.py)::(test_\w+)", (ROOT / "docs" / document).read_text()))
    assert len(named) > 20
    for file, function in sorted(named):
        (path,) = (ROOT / "tests").rglob(file)
        assert re.search(rf"^def {function}\(", path.read_text(), flags=re.MULTILINE), f"{file} has no {function}"
