"""Prompts that a spec names by dataset instead of writing them out.

`prompts` and `evaluation.prompts` may be `{"dataset": "ds_…", "split": "train"}`. The reference is what is stored; for
the checks, and for the trainer, the prompts of the split stand in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from egrpo.spec_issues import spec_issues
from egrpo.spec_model import SpecModel
from jobs.errors import FieldError, NotFound

SplitName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
PLACES: tuple[tuple[str, ...], ...] = (("prompts",), ("evaluation", "prompts"))
_INLINE = re.compile(r"(/prompts|/evaluation/prompts)/inline(?:/(\d+))?")


class DatasetPrompts(SpecModel):
    """The prompts of one split of a dataset of the project."""

    dataset: Annotated[str, StringConstraints(pattern=r"^ds_[0-9a-z]{26}$")] = Field(
        examples=["ds_06nt0v5c3zq8x1m7w2k4r9d5ty"]
    )
    split: SplitName = "train"


PromptsOf = Callable[[DatasetPrompts], list[str]]


@dataclass
class FilledIn:
    """A document with its references replaced by prompts, the references, and what is wrong with them."""

    document: Any
    references: dict[str, DatasetPrompts] = field(default_factory=dict)
    problems: list[FieldError] = field(default_factory=list)

    def told_at_the_dataset(self, problem: FieldError) -> FieldError | None:
        """Returns a problem of the filled-in document as one of the document that was sent; None: it is told already.

        A prompt that came from a dataset has no place in the request, so its problem is told at the dataset.
        """
        broken = {each.pointer and each.pointer.split("/prompts")[0] + "/prompts" for each in self.problems}
        if problem.pointer in broken:
            return None
        match = _INLINE.fullmatch(problem.pointer or "")
        if match is None or match[1] not in self.references:
            return problem
        where = "the dataset" if match[2] is None else f"prompt {match[2]}"
        detail = f"{where} of split {self.references[match[1]].split!r}: {problem.detail}"
        return FieldError(problem.code, detail, pointer=f"{match[1]}/dataset", allowed=problem.allowed)


def fill_in(document: Any, prompts_of: PromptsOf) -> FilledIn:
    """Returns the document with the prompts of the datasets that it names written out.

    A place whose reference is wrong is left out, and said in `problems`.

    Args:
        document: A JSON document; nothing of it needs to be right.
        prompts_of: Returns the prompts of a reference, or raises `NotFound`.
    """
    filled = FilledIn(document)
    for place in PLACES:
        value = _at(document, place)
        if not isinstance(value, Mapping) or "dataset" not in value:
            continue
        pointer = "/" + "/".join(place)
        try:
            reference = DatasetPrompts.model_validate(value, strict=True)
            prompts = prompts_of(reference)
        except ValidationError as error:
            filled.problems += [_wrong_reference(pointer, issue) for issue in spec_issues(error)]
            filled.document = _replaced(filled.document, place, None)
        except NotFound as error:
            filled.problems.append(FieldError("unknown_dataset", error.detail, pointer=f"{pointer}/dataset"))
            filled.document = _replaced(filled.document, place, None)
        else:
            filled.references[pointer] = reference
            filled.document = _replaced(filled.document, place, {"inline": prompts})
    return filled


def put_back(document: dict[str, Any], references: Mapping[str, DatasetPrompts]) -> dict[str, Any]:
    """Returns the document of a filled-in spec with the references in their places."""
    for pointer, reference in references.items():
        document = _replaced(document, tuple(pointer[1:].split("/")), reference.model_dump(mode="json"))
    return document


def _wrong_reference(pointer: str, issue: Any) -> FieldError:
    codes = {"extra_forbidden": "unknown_field", "missing": "missing", "string_pattern_mismatch": "wrong_format"}
    detail = "there is no such field" if issue.code == "extra_forbidden" else issue.detail
    allowed = sorted(DatasetPrompts.model_fields) if issue.code == "extra_forbidden" else issue.allowed
    return FieldError(codes.get(issue.code, "wrong_type"), detail, pointer=pointer + issue.pointer, allowed=allowed)


def _at(document: Any, place: Iterable[str]) -> Any:
    for name in place:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _replaced(document: Any, place: tuple[str, ...], value: Any) -> Any:
    """Returns a copy with another value at a place that is there; None takes it away."""
    name, *rest = place
    inner = _replaced(document[name], tuple(rest), value) if rest else value
    return {key: inner if key == name else kept for key, kept in document.items() if key != name or inner is not None}
