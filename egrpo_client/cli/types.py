"""Which types of the client an option can have, and how mappings are written on a command line."""

import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from egrpo_client.errors import SpecFileError


def option_type(hint: Any) -> Any:
    """Returns what typer can read for a type: scalars, choices and lists of them; None where it has to be JSON."""
    kinds = [each for each in typing.get_args(hint) if each is not types.NoneType]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return option_type(kinds[0]) if len(kinds) == 1 else None
    if hint in (str, int, float, bool):
        return hint
    if typing.get_origin(hint) is Literal:
        return hint if all(isinstance(value, str) for value in typing.get_args(hint)) else None
    if typing.get_origin(hint) is list and option_type(kinds[0]) is not None:
        # typer knows no lists of choices; the service names those that it does not know.
        return list[str] if typing.get_origin(kinds[0]) is Literal else list[option_type(kinds[0])]  # type: ignore[misc]
    return None


def choices(hint: Any) -> str:
    """Returns the values that a list of choices may have, for a reader."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, inner))
    return next(filter(None, map(choices, inner)), "") if inner else ""


def is_mapping(hint: Any) -> bool:
    """Returns whether a value is a mapping of texts, which an option takes as `KEY=VALUE`."""
    kinds = [each for each in typing.get_args(hint) if each is not types.NoneType]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return len(kinds) == 1 and is_mapping(kinds[0])
    return typing.get_origin(hint) is dict and kinds == [str, str]


def mapping(name: str, texts: Iterable[str]) -> dict[str, str]:
    """Returns the mapping of `KEY=VALUE` texts.

    Raises:
        SpecFileError: one of them has no `=`.
    """
    pairs = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            raise SpecFileError(f"--{name} {text} is not KEY=VALUE.")
        pairs[key] = value
    return pairs
