"""What is wrong with a document, problem by problem: where (JSON pointer), what, the value, what would be allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from egrpo import catalogue
from egrpo.methods import METHODS


@dataclass(frozen=True)
class SpecIssue:
    """One thing wrong with a spec: where (JSON pointer), what, the value, and what would be allowed."""

    pointer: str
    code: str
    detail: str
    value: Any
    allowed: Any = None

    def __str__(self) -> str:
        allowed = "" if self.allowed is None else f"; allowed: {self.allowed}"
        value = "" if self.code == "missing" else f" (got {_short(self.value)})"
        return f"{self.pointer}: {self.detail}{value}{allowed}"


_LIMITS = {
    "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of", "max_length": "length at most",
    "min_length": "length at least", "pattern": "", "expected": "", "allowed": "",
}  # fmt: skip


def spec_issues(error: ValidationError) -> list[SpecIssue]:
    """Returns every problem that pydantic found, each with a JSON pointer and what is allowed."""
    return [_issue(item) for item in error_items(error)]


def error_items(error: ValidationError) -> list[dict[str, Any]]:
    """Returns pydantic's errors, those of unions by `type` told as errors of that field.

    Pydantic names the chosen member of such a union in the location: it becomes "#member", which is no part of a
    JSON pointer.
    """
    # A default that follows another field has nothing to say when that field, or one beside it, is wrong.
    found = [item for item in error.errors(include_url=False) if item["type"] != "default_factory_not_called"]
    return [_without_tags(dict(item)) for item in found]


def _without_tags(item: dict[str, Any]) -> dict[str, Any]:
    location, context = list(item["loc"]), item.get("ctx", {})
    for index, part in enumerate(location[1:], start=1):
        of_reward = part in catalogue.REWARDS and isinstance(location[index - 1], int)
        of_method = part in METHODS and location[index - 1] == "method"
        if of_reward or of_method:
            location[index] = f"#{part}"
    item["loc"] = tuple(location)
    if item["type"] == "union_tag_not_found":
        return item | {"type": "missing", "loc": (*location, "type"), "msg": "Field required"}
    if item["type"] == "union_tag_invalid":
        expected = context["expected_tags"]
        given = item["input"]["type"] if isinstance(item["input"], Mapping) else item["input"]
        return item | {
            "type": "literal_error",
            "loc": (*location, "type"),
            "msg": f"Input should be {expected}",
            "input": given,
            "ctx": {"expected": expected},
        }
    return item


def _issue(item: Mapping[str, Any]) -> SpecIssue:
    location = [str(part) for part in item["loc"] if not str(part).startswith("#")]
    pointer = "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in location)
    context = item.get("ctx", {})
    allowed = [f"{word} {context[key]}".strip() for key, word in _LIMITS.items() if key in context]
    return SpecIssue(pointer, item["type"], item["msg"], item["input"], ", ".join(allowed) or None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
