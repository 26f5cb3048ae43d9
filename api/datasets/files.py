"""Files of prompts: JSON Lines or plain text, read line by line, every wrong line told at once.

A line of JSON Lines is `{"prompt": "…", "split": "train"}`, the split optional; a line of plain text is a prompt of the
split `train`. Empty lines count as lines and hold nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from api.datasets.schemas import MAX_PROMPTS, MAX_SPLITS
from egrpo.config import Prompt
from jobs.errors import FieldError, InvalidRequest
from jobs.prompt_references import SplitName

JSON_LINES = frozenset({"application/jsonl", "application/x-ndjson"})
PLAIN_TEXT = frozenset({"text/plain"})
_MAX_ERRORS = 1000


class Line(BaseModel):
    """One prompt of a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Prompt
    split: SplitName = "train"


def splits_of(body: bytes, media_type: str) -> dict[str, list[str]]:
    """Returns the prompts of a file, by split.

    Raises:
        InvalidRequest: with every wrong line; a pointer such as `/3/prompt` counts lines from 0.
    """
    splits: dict[str, list[str]] = {}
    problems: list[FieldError] = []
    for number, text in _lines(body):
        try:
            line = Line.model_validate(json.loads(text) if media_type in JSON_LINES else {"prompt": text})
        except ValidationError as error:
            problems += [_problem(number, item) for item in error.errors(include_url=False)]
        except (ValueError, RecursionError) as error:
            problems.append(FieldError("malformed_json", f"line {number + 1}: {error}", pointer=f"/{number}"))
        else:
            splits.setdefault(line.split, []).append(line.prompt)
        if len(problems) >= _MAX_ERRORS:
            break
    problems += _size_problems(splits) if not problems else []
    if problems:
        raise InvalidRequest(problems[:_MAX_ERRORS])
    return splits


def _lines(body: bytes) -> Iterator[tuple[int, str]]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start)
        raise InvalidRequest(
            [FieldError("wrong_format", f"line {line + 1} is not UTF-8", pointer=f"/{line}", allowed="UTF-8")]
        ) from None
    # Not splitlines(): that also breaks at characters that a prompt may contain.
    for number, content in enumerate(text.split("\n")):
        if content.strip():
            yield number, content


def _problem(number: int, item: Any) -> FieldError:
    path = "".join(f"/{part}" for part in item["loc"])
    code = {"missing": "missing", "extra_forbidden": "unknown_field"}.get(item["type"], "invalid_value")
    context = item.get("ctx", {})
    allowed = next((f"{key} {context[key]}" for key in ("max_length", "min_length", "pattern") if key in context), None)
    return FieldError(code, f"line {number + 1}: {item['msg']}", pointer=f"/{number}{path}", allowed=allowed)


def _size_problems(splits: dict[str, list[str]]) -> list[FieldError]:
    if not splits:
        return [FieldError("too_short", "the file has no prompt", pointer="", allowed="at least 1 prompt")]
    problems = []
    if len(splits) > MAX_SPLITS:
        problems.append(FieldError("too_long", f"{len(splits)} splits", pointer="", allowed=f"<= {MAX_SPLITS}"))
    for name, prompts in splits.items():
        if len(prompts) > MAX_PROMPTS:
            detail = f"split {name!r} has {len(prompts)} prompts"
            problems.append(FieldError("too_long", detail, pointer="", allowed=f"<= {MAX_PROMPTS}"))
    return problems
