"""What a user asks for: the training spec of `egrpo.config`, plus what only the service knows.

`parse` finds everything that is wrong with a document at once, each with a JSON pointer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from egrpo import catalogue
from egrpo.config import HubModel, TrainSpec
from egrpo.spec_issues import SpecIssue, error_items, spec_issues
from egrpo.spec_model import SpecModel
from jobs import plans
from jobs.errors import FieldError, InvalidRequest
from jobs.tables import Document

_MAX_ERRORS = 1000

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Resources(SpecModel):
    """What the job runs on. A worker without a GPU runs it on its CPU."""

    gpus: int = Field(default=1, ge=0, le=1)


class Limits(SpecModel):
    """Budgets, and what happens when one is used up."""

    max_gpu_hours: float | None = Field(default=None, gt=0, le=100_000)
    on_limit: Literal["pause"] = "pause"


class JobSpec(TrainSpec):
    """One job, whole: what is trained, and how the service treats it."""

    # The service's own folders are nobody's base model.
    local_models_allowed: ClassVar[bool] = False

    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)

    @field_validator("base_model")
    @classmethod
    def _model_is_in_the_catalogue(cls, value: str | HubModel) -> str | HubModel:
        # Only what an operator has allowed is ever loaded.
        known = {(entry.repo, entry.revision) for entry in catalogue.MODELS.values()}
        if isinstance(value, HubModel) and (value.repo, value.revision) not in known:
            raise PydanticCustomError("unknown_model", "base_model is unknown", {"allowed": sorted(catalogue.MODELS)})
        return value

    def train_spec(self) -> TrainSpec:
        """Returns what the trainer gets."""
        return TrainSpec.model_validate(self.model_dump(include=set(TrainSpec.model_fields)))

    def base_model_label(self) -> str:
        """Returns the base model in one line: its catalogue id, or repo@revision."""
        model = self.base_model
        return f"{model.repo}@{model.revision}" if isinstance(model, HubModel) else model


def parse(document: Any) -> JobSpec:
    """Returns the spec of a JSON document. Types are taken strictly: "300" is not a number, true is not 1.

    Raises:
        InvalidRequest: with every problem of the document.
    """
    problems = _unstorable(document, "")
    try:
        spec = JobSpec.model_validate(document, strict=True)
    except ValidationError as error:
        named = {problem.pointer for problem in problems}
        problems += [found for found in _field_errors(error) if found.pointer not in named]
        raise InvalidRequest(problems[:_MAX_ERRORS]) from None
    problems += plans.problems(spec)
    if problems:
        raise InvalidRequest(problems[:_MAX_ERRORS])
    return spec


# Our codes are stable; pydantic's words for them are not promised to be.
_CODES = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "unknown_model": "unknown_model",
    "dispersion": "dispersion_above_limit",
    "prompt_not_scorable": "prompt_not_scorable",
    "reward_twice": "not_allowed",
    "group_of_one": "out_of_range",
    "unexpected": "unexpected_field",
    "string_pattern_mismatch": "wrong_format",
    "finite_number": "out_of_range",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "multiple_of": "out_of_range",
    "too_long": "too_long",
    "too_short": "too_short",
    "string_too_long": "too_long",
    "string_too_short": "too_short",
    "literal_error": "not_allowed",
}
_REWARD_TYPE = re.compile(r"/reward/(components|held_out)/\d+/type")
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")
_QUOTED = re.compile(r"'([^']*)'")


def _field_errors(error: ValidationError) -> list[FieldError]:
    return [_field_error(issue, item) for issue, item in zip(spec_issues(error), error_items(error), strict=True)]


def _field_error(issue: SpecIssue, item: Mapping[str, Any]) -> FieldError:
    # RFC 6901: the whole document is "", and pydantic's "[key]" marks a name, which has no pointer of its own.
    pointer = "" if issue.pointer == "/" else issue.pointer.removesuffix("/[key]")
    code, detail = _code_and_detail(pointer, item)
    return FieldError(code, detail, pointer=pointer, allowed=_allowed(issue.allowed, item))


def _code_and_detail(pointer: str, item: Mapping[str, Any]) -> tuple[str, str]:
    kind = item["type"]
    if kind == "literal_error" and _REWARD_TYPE.fullmatch(pointer):
        return "unknown_reward", "there is no such reward"
    if kind == "extra_forbidden":
        return "unknown_field", "there is no such field"
    if kind == "model_type":
        return "wrong_type", "must be an object"
    if kind.endswith(("_type", "_parsing", "_attributes_type")):
        return "wrong_type", item["msg"]
    return _CODES.get(kind, "invalid_value"), item["msg"]


def _allowed(bounds: Any, item: Mapping[str, Any]) -> Any:
    """Returns a list where there is a choice, a phrase such as "<= 200" where there is a bound."""
    context = item.get("ctx", {})
    if "allowed" in context:
        return context["allowed"]
    if item["type"] == "literal_error":
        return _QUOTED.findall(context["expected"])
    if item["type"] == "extra_forbidden":
        return _fields_beside(item["loc"])
    return bounds


def _fields_beside(location: tuple[int | str, ...]) -> list[str] | None:
    """Returns the names of the fields that exist where an unknown one was found."""
    schema = JobSpec.model_json_schema()
    node: Mapping[str, Any] | None = schema
    for part in location[:-1]:
        if node is not None and str(part).startswith("#"):
            node = next((option for option in _options(schema, node) if _is_member(option, str(part)[1:])), node)
        elif node is not None:
            node = next((found for option in _options(schema, node) if (found := _child(option, part))), None)
    properties = [] if node is None else [o["properties"] for o in _options(schema, node) if "properties" in o]
    return sorted(properties[0]) if properties else None


def _options(schema: Mapping[str, Any], node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the schemas that a node stands for: its reference followed, its alternatives taken apart."""
    if "$ref" in node:
        return _options(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
    alternatives = node.get("anyOf") or node.get("oneOf")
    return [found for option in alternatives for found in _options(schema, option)] if alternatives else [node]


def _child(node: Mapping[str, Any], part: int | str) -> Mapping[str, Any] | None:
    child = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
    return child if isinstance(child, Mapping) else None


def _is_member(node: Mapping[str, Any], tag: str) -> bool:
    """Returns whether a schema is the member of a union by `type` that has this tag."""
    type_ = node.get("properties", {}).get("type", {})
    return tag in (type_.get("const"), *type_.get("enum", ()))


def _unstorable(value: Any, pointer: str) -> list[FieldError]:
    """Returns the texts that PostgreSQL cannot keep: with NUL, or with half of a surrogate pair."""
    if isinstance(value, str):
        detail = "text must not contain NUL characters or unpaired surrogates"
        return [FieldError("wrong_format", detail, pointer=pointer)] if _UNSTORABLE.search(value) else []
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _unstorable(item, f"{pointer}/{index}")]
    if isinstance(value, Mapping):
        return [
            *(found for name in value for found in _unstorable(name, pointer)),
            *(found for name, item in value.items() for found in _unstorable(item, f"{pointer}/{_escaped(name)}")),
        ]
    return []


def _escaped(name: str) -> str:
    return name.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")


def document_of(spec: JobSpec) -> Document:
    """Returns the spec as it is stored: every default filled in."""
    return spec.model_dump(mode="json")
