"""A command for a method of the client: its parameters become arguments and options, its answer is printed."""

import inspect
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from egrpo_client.cli.answers import show
from egrpo_client.cli.bodies import Body
from egrpo_client.cli.completion import ids_for
from egrpo_client.cli.types import choices, is_mapping, mapping, option_type
from egrpo_client.sync.client import Client
from egrpo_client.sync.operations import OPERATIONS

Parameter = inspect.Parameter
# Rows of a list, unless told otherwise: a job may have a million of metrics.
DEFAULT_LIMIT = 100
_AS_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_OUTPUT = Annotated[Path | None, typer.Option(help="File for the answer.", show_default="standard output")]
_YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def command_for(name: str) -> Callable[..., None]:
    """Returns the command that calls the method, as a function with the signature that typer reads."""
    method = getattr(Client, name)
    hints = typing.get_type_hints(method)
    own = {key: value for key, value in inspect.signature(method).parameters.items() if key not in ("self", "body")}
    body = Body.of(hints["body"], own) if "body" in hints else None
    other_formats = getattr(Client, f"{name}_text", None)
    text, helps = told(inspect.getdoc(method) or "")
    parameters = [
        _parameter(name, value, hints[value.name], helps.get(value.name, ""))
        for value in own.values()
        if value.name != "content_type"
    ]
    mappings = [each for each in own if is_mapping(hints[each]) and (body is None or each not in body.shared)]
    parameters += body.parameters() if body is not None else []
    if other_formats is not None:
        kinds = typing.get_type_hints(other_formats)["format"]
        parameters.append(_option("format", kinds, help="Print this instead of a table."))
    parameters += _presentation(OPERATIONS[name].method, hints["return"])

    def command(**values: Any) -> None:
        if OPERATIONS[name].method == "DELETE" and not values.pop("yes") and _is_declined(name, values):
            raise typer.Exit(1)
        as_json, output = values.pop("as_json", False), values.pop("output", None)
        wants_text = other_formats is not None and values["format"] is not None
        if other_formats is not None and not wants_text:
            values.pop("format")
        if body is not None:
            values.update(body.take(values))
        if wants_text:
            values.pop("limit", None)
        for each in mappings:
            values[each] = mapping(each, values[each]) if values[each] else None
        called = f"{name}_text" if wants_text else name
        if output is not None:
            called, values["target"] = f"save_{name.removeprefix('get_')}", output
        positional = [values.pop(each.name) for each in own.values() if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
        positional += [values.pop("body")] if body is not None else []
        with Client.from_environment() as client:
            show(getattr(client, called)(*positional, **values), as_json=as_json)

    command.__doc__ = text
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.operation = OPERATIONS[name].operation_id  # type: ignore[attr-defined]
    return command


def told(doc: str) -> tuple[str, dict[str, str]]:
    """Returns a docstring without its arguments, and what it says of each of them."""
    text, _, arguments = doc.partition("\n\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return text, {name: escape(" ".join(words.split())) for name, words in found}


def _option(name: str, hint: Any, *, help: str = "") -> Parameter:
    flag = f"--{name.strip('_').replace('_', '-')}"
    told = typer.Option(flag, help=help, show_default=False)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[hint | None, told])


def _parameter(method: str, parameter: Parameter, hint: Any, help: str) -> Parameter:
    name = parameter.name
    if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
        told = typer.Argument(
            metavar=name.removesuffix("_id").upper(), help=help, show_default=False, autocompletion=ids_for(name)
        )
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[str, told])
    if name == "limit" and OPERATIONS[method].operation_id.startswith("list"):
        limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
        return Parameter(name, Parameter.KEYWORD_ONLY, default=DEFAULT_LIMIT, annotation=limit)
    kind = list[str] if is_mapping(hint) else option_type(hint) or str
    option = _option(name, kind, help=help or choices(hint))
    return option if parameter.default is None else option.replace(default=Parameter.empty)


def _presentation(verb: str, answer: Any) -> list[Parameter]:
    found = []
    if answer is bytes:
        found.append(Parameter("output", Parameter.KEYWORD_ONLY, default=None, annotation=_OUTPUT))
    else:
        found.append(Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=_AS_JSON))
    if verb == "DELETE":
        found.append(Parameter("yes", Parameter.KEYWORD_ONLY, default=False, annotation=_YES))
    return found


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _is_declined(name: str, values: dict[str, Any]) -> bool:
    """Returns whether somebody at a terminal thinks better of it; a script is not asked."""
    ids = " ".join(str(value) for key, value in values.items() if key.endswith("_id"))
    return _is_terminal() and not typer.confirm(f"{name.replace('_', ' ').capitalize()} {ids}?")
