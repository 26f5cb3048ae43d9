"""What a command sends: a file, options for the fields of the body, or both; an option wins."""

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import typer
import yaml

from egrpo_client.cli.types import choices, is_mapping, mapping, option_type
from egrpo_client.errors import SpecFileError

Parameter = inspect.Parameter
_SUFFIXES = {".jsonl": "application/jsonl", ".ndjson": "application/x-ndjson", ".txt": "text/plain"}
# On a command line everybody on the machine can read them, and the shell keeps them.
_SECRET = frozenset({"value", "secret", "password", "token"})


@dataclasses.dataclass(frozen=True)
class Body:
    """The body of an operation: its fields with their types, and whether a file of another type will do."""

    fields: Mapping[str, Any]
    takes_file: bool
    is_required: bool
    shared: frozenset[str]

    @classmethod
    def of(cls, hint: Any, parameters: Mapping[str, Parameter]) -> Self:
        """Returns the body that a method takes.

        Args:
            hint: the type of its `body`.
            parameters: its other parameters; a field of the same name is the same option.
        """
        is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if is_union else (hint,)
        fields = {
            name: kind
            for each in kinds
            if typing.is_typeddict(each)
            for name, kind in typing.get_type_hints(each).items()
        }
        return cls(fields, bytes in kinds, types.NoneType not in kinds, frozenset(fields) & frozenset(parameters))

    def parameters(self) -> list[Parameter]:
        """Returns the options: one for each field, `--body`, and `--file` where a file of another type will do."""
        found = [_field(name, kind) for name, kind in self.fields.items() if name not in self.shared]
        body = Annotated[str | None, typer.Option("--body", help="YAML or JSON: a file, - for standard input.")]
        found.append(Parameter("body", Parameter.KEYWORD_ONLY, default=None, annotation=body))
        if self.takes_file:
            told = f"A file as it is: {', '.join(_SUFFIXES)}."
            file = Annotated[Path | None, typer.Option("--file", help=told, exists=True, dir_okay=False)]
            found.append(Parameter("file", Parameter.KEYWORD_ONLY, default=None, annotation=file))
        return found

    def take(self, values: dict[str, Any]) -> dict[str, Any]:
        """Takes the options of the body out of a command's values and returns what the method takes in their place.

        Raises:
            SpecFileError: a file cannot be read, or is of no known type.
        """
        file = values.pop("file", None)
        source = values.pop("body")
        given = {name: values.pop(name) for name in self.fields if name not in self.shared}
        if file is not None:
            return {"body": file.read_bytes(), "content_type": _content_type(file)}
        shared = {name: values.pop(name) for name in self.shared}
        values.update(dict.fromkeys(self.shared))
        body = _read(source) if source is not None else {}
        for name, value in {**given, **shared}.items():
            if value not in (None, []):
                body[name] = _value(name, value, self.fields[name])
        return {"body": body or ({} if self.is_required else None)}


def _field(name: str, kind: Any) -> Parameter:
    readable, help = option_type(kind), choices(kind)
    if name in _SECRET:
        readable, help = str, "From a file: @FILE, or @- for standard input."
    elif is_mapping(kind):
        readable, help = list[str], "KEY=VALUE, as often as needed."
    elif readable is None:
        readable, help = str, "JSON."
    told = typer.Option(f"--{name.replace('_', '-')}", help=help, show_default=False)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[readable | None, told])


def _value(name: str, value: Any, kind: Any) -> Any:
    if name in _SECRET:
        return _secret(name, value)
    if is_mapping(kind):
        return mapping(name, value)
    return value if option_type(kind) is not None else _parsed(value, f"--{name.replace('_', '-')}")


def _secret(name: str, value: str) -> str:
    if not value.startswith("@"):
        raise SpecFileError(
            f"--{name} would be seen by everybody on this machine. Give @FILE, or @- for standard input."
        )
    return _text(value[1:]).rstrip("\n")


def _read(source: str) -> dict[str, Any]:
    body = _parsed(_text(source), source)
    if not isinstance(body, dict):
        raise SpecFileError(f"{source} holds no mapping.")
    return body


def _text(source: str) -> str:
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecFileError(f"{source} cannot be read: {error}") from error


def _parsed(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecFileError(f"{source} is neither JSON nor YAML: {error}") from error


def _content_type(file: Path) -> str:
    kind = _SUFFIXES.get(file.suffix)
    if kind is None:
        raise SpecFileError(f"{file} has none of the endings {', '.join(_SUFFIXES)}.")
    return kind
