"""What a user asks for: the training spec of `egrpo.config`, plus what only the service knows.

`parse` finds everything that is wrong with a document at once, each with a JSON pointer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from egrpo import catalogue
from egrpo.config import HubModel, TrainSpec
from egrpo.spec_issues import SpecIssue, error_items, spec_issues
from egrpo.spec_model import SpecModel
from jobs import plans, prompt_references
from jobs.errors import FieldError, InvalidRequest, NotFound
from jobs.ids import is_id
from jobs.prompt_references import DatasetPrompts, PromptsOf
from jobs.tables import Document

_MAX_ERRORS = 1000

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


GPUType = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")]


class Resources(SpecModel):
    """What the job runs on: GPUs, each with a process of its own. A worker without GPUs runs it on its CPU."""

    gpus: int = Field(default=1, ge=0, le=8)
    gpu_type: GPUType | None = Field(default=None, examples=["h100"])


def _time(value: Any) -> Any:
    """Returns the time, in UTC, of text as RFC 3339 has it; what is no text is left to the field's type."""
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)  # Years at the ends of the calendar have no such time.
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("no_time", "must be a time with its offset, such as 2026-12-01T08:00:00Z")


# In what is sent, where types are strict and JSON has no times.
Time = Annotated[AwareDatetime, BeforeValidator(_time)]


class Limits(SpecModel):
    """Budgets, and what happens when one is used up."""

    max_gpu_hours: float | None = Field(default=None, gt=0, le=100_000)
    deadline_at: Time | None = Field(default=None, examples=["2026-12-01T08:00:00Z"])
    on_limit: Literal["pause"] = "pause"


# What the trainer's libraries read; any other variable could change which code it runs, or what it talks to.
SecretVariable = Literal[
    "HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
]


class JobSpec(TrainSpec):
    """One job, whole: what is trained, and how the service treats it."""

    # The service's own folders are nobody's base model.
    local_models_allowed: ClassVar[bool] = False

    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    priority: Literal["low", "normal", "high"] = "normal"
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)
    secrets: dict[SecretVariable, str] = Field(
        default_factory=dict,
        description="secrets of the project, by id, for variables of the trainer's environment",
        examples=[{"HF_TOKEN": "sec_06nt0v5c3zq8x1m7w2k4r9d5ty"}],
    )

    # Where the prompts of a dataset were filled in: by JSON pointer.
    _references: dict[str, DatasetPrompts] = PrivateAttr(default_factory=dict)

    @property
    def references(self) -> dict[str, DatasetPrompts]:
        """The datasets whose prompts stand in this spec, by JSON pointer."""
        return self._references

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns the schema of what `parse` takes: prompts may be named by dataset."""
        schema = super().model_json_schema(*args, **kwargs)
        inline = schema["$defs"]["PromptSource"]
        schema["$defs"]["PromptSource"] = {
            "description": "Prompts, written out or by dataset.",
            "oneOf": [inline, DatasetPrompts.model_json_schema()],
        }
        return schema

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


def hub_repo(base_model: str | Document) -> str | None:
    """Returns the repository on the hub of a stored spec's base model; None for one that is part of the package."""
    if isinstance(base_model, str):
        entry = catalogue.MODELS.get(base_model)
        return entry.repo if entry else None
    return str(base_model["repo"])


class JobChanges(SpecModel):
    """What may be changed about a job that exists; what is left out stays."""

    # Defaults of no meaning: only what was given is looked at, and null is no value of either.
    name: str = Field(default="", min_length=1, max_length=200)
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="takes the place of all that is there"
    )
    limits: Limits = Field(default_factory=Limits, description="takes the place of the limits that are there")


def no_datasets(reference: DatasetPrompts) -> list[str]:
    """Finds no dataset.

    Raises:
        NotFound: always.
    """
    raise NotFound(f"there is no dataset {reference.dataset!r}")


def parse(
    document: Any, prompts_of: PromptsOf = no_datasets, has_secret: Callable[[str], bool] = lambda _: False
) -> JobSpec:
    """Returns the spec of a JSON document. Types are taken strictly: "300" is not a number, true is not 1.

    Args:
        document: The document.
        prompts_of: Returns the prompts of a dataset that the document names; they are checked like written ones.
        has_secret: Says whether the project has the secret of an id.

    Raises:
        InvalidRequest: with every problem of the document.
    """
    problems = _unstorable(document, "")
    problems += _unknown_secrets(document, has_secret)
    filled = prompt_references.fill_in(document, prompts_of)
    try:
        spec = JobSpec.model_validate(filled.document, strict=True)
    except ValidationError as error:
        named = {problem.pointer for problem in problems}
        told = (filled.told_at_the_dataset(found) for found in _field_errors(error, JobSpec))
        problems += filled.problems + [found for found in told if found is not None and found.pointer not in named]
        raise InvalidRequest(problems[:_MAX_ERRORS]) from None
    spec._references = filled.references
    problems += filled.problems
    problems += plans.problems(spec)
    problems += _unshareable(spec)
    if problems:
        raise InvalidRequest(problems[:_MAX_ERRORS])
    return spec


_M = TypeVar("_M", bound=BaseModel)


def checked(model: type[_M], document: Any) -> _M:
    """Returns a document as another model of a request, checked as strictly as a spec.

    Raises:
        InvalidRequest: with every problem of the document.
    """
    problems = _unstorable(document, "")
    try:
        value = model.model_validate(document, strict=True)
    except ValidationError as error:
        named = {problem.pointer for problem in problems}
        problems += [found for found in _field_errors(error, model) if found.pointer not in named]
    if problems:
        raise InvalidRequest(problems[:_MAX_ERRORS])
    return value


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
    "no_time": "wrong_format",
    "white_space_around": "wrong_format",
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


def _field_errors(error: ValidationError, model: type[BaseModel]) -> list[FieldError]:
    issues = zip(spec_issues(error), error_items(error), strict=True)
    return [_field_error(issue, item, model) for issue, item in issues]


def _field_error(issue: SpecIssue, item: Mapping[str, Any], model: type[BaseModel]) -> FieldError:
    # RFC 6901: the whole document is "", and pydantic's "[key]" marks a name, which has no pointer of its own.
    pointer = "" if issue.pointer == "/" else issue.pointer.removesuffix("/[key]")
    code, detail = _code_and_detail(pointer, item)
    return FieldError(code, detail, pointer=pointer, allowed=_allowed(issue.allowed, item, model))


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


def _allowed(bounds: Any, item: Mapping[str, Any], model: type[BaseModel]) -> Any:
    """Returns a list where there is a choice, a phrase such as "<= 200" where there is a bound."""
    context = item.get("ctx", {})
    if "allowed" in context:
        return context["allowed"]
    if item["type"] == "literal_error":
        return _QUOTED.findall(context["expected"])
    if item["type"] == "extra_forbidden":
        return _fields_beside(item["loc"], model)
    return bounds


def _fields_beside(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str] | None:
    """Returns the names of the fields that exist where an unknown one was found."""
    schema = model.model_json_schema()
    node: Mapping[str, Any] | None = schema
    for part in location[:-1]:
        if node is not None and str(part).startswith("#"):
            node = next((option for option in _options(schema, node) if _is_member(option, str(part)[1:])), node)
        elif node is not None:
            node = next((found for option in _options(schema, node) if (found := _child(option, part))), None)
    properties = [] if node is None else [o["properties"] for o in _options(schema, node) if "properties" in o]
    return sorted({name for each in properties for name in each}) if properties else None


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


def _no_secret(secret_id: str) -> str:
    # What has not the form of an id may be the secret itself.
    return f"there is no secret {secret_id!r}" if is_id(secret_id, "sec") else "this is not the id of a secret"


def _unknown_secrets(document: Any, has_secret: Callable[[str], bool]) -> list[FieldError]:
    """Returns the secrets that are not there, whatever else is wrong; of what cannot be one the model says so."""
    named = document.get("secrets") if isinstance(document, Mapping) else None
    named = named if isinstance(named, Mapping) else {}
    given = {variable: named[variable] for variable in get_args(SecretVariable) if variable in named}
    return [
        FieldError("unknown_secret", _no_secret(secret_id), pointer=f"/secrets/{variable}")
        for variable, secret_id in given.items()
        if isinstance(secret_id, str) and not _UNSTORABLE.search(secret_id) and not has_secret(secret_id)
    ]


def _unshareable(spec: JobSpec) -> list[FieldError]:
    """Returns that the GPUs cannot share the prompts of an update equally: the trainer would refuse it, and later."""
    prompts, gpus = spec.training.prompts_per_update, spec.resources.gpus
    if gpus == 0 or prompts % gpus == 0:
        return []
    detail = f"the {prompts} prompts of an update (training.prompts_per_update) cannot be shared by {gpus} GPUs"
    allowed = [count for count in range(9) if count == 0 or prompts % count == 0]
    return [FieldError("not_allowed", detail, pointer="/resources/gpus", allowed=allowed)]


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
    """Returns the spec as it is stored: every default filled in, prompts of a dataset by its name."""
    return prompt_references.put_back(spec.model_dump(mode="json"), spec.references)
