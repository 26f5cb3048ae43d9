"""`egrpo RESOURCE VERB`: a command for each operation of the service, made from the client's method for it.

Names come from the operation: `createDataset` under `/v1/datasets` is `egrpo datasets create`. Operations of a resource
whose name is a command of its own already, as in `egrpo attempts JOB`, are found under the collection that it belongs
to: `egrpo jobs list-attempts`. A new operation of the service is a new command without a line written here.
"""

import re
from collections.abc import Iterable

import typer

from egrpo_client.cli.commands import command_for
from egrpo_client.exchange import Operation
from egrpo_client.sync.operations import OPERATIONS

_HELP = {"jobs": "Jobs, by operation. Most are shorter as in: egrpo submit, list, show, watch, cancel."}
_SERVICE = "service"


def register(app: typer.Typer) -> None:
    """Adds a group for each resource; one that is there already, as `egrpo models`, gets what it lacks."""
    made = [info.typer_instance for info in app.registered_groups if info.typer_instance is not None]
    groups = {str(group.info.name): group for group in made}
    plain = {info.name or (info.callback and info.callback.__name__) for info in app.registered_commands}
    for resource, methods in grouped(plain).items():
        group = groups.get(resource)
        if group is None:
            text = _HELP.get(resource, f"{resource.replace('-', ' ').capitalize()}: {', '.join(methods)}.")
            group = typer.Typer(name=resource, help=text, no_args_is_help=True)
            app.add_typer(group)
        for verb, method in methods.items():
            group.command(verb)(command_for(method))


def grouped(taken: Iterable[str | None] = ()) -> dict[str, dict[str, str]]:
    """Returns the methods by resource and verb.

    Args:
        taken: names that are commands, and cannot be groups.
    """
    groups: dict[str, dict[str, str]] = {}
    for method, operation in OPERATIONS.items():
        resource = resource_of(operation)
        if resource in set(taken):
            resource = operation.path.split("/")[2]
        groups.setdefault(resource, {})[verb_of(operation.operation_id, resource)] = method
    return groups


def resource_of(operation: Operation) -> str:
    """Returns what an operation is about: its tag where that is in the path, else the first collection of the path."""
    segments = [each for each in operation.path.split("/") if each and not each.startswith("{")]
    if segments[0] != "v1":
        return _SERVICE
    return operation.resource if operation.resource in segments else segments[1]


def verb_of(operation_id: str, resource: str) -> str:
    """Returns the operation without the words of its resource: `listDatasetPrompts` of datasets is `list-prompts`."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+", operation_id)]
    nouns = {noun for word in resource.split("-") for noun in (word, word.removesuffix("s"), word.removesuffix("es"))}
    return "-".join([word for word in words if word not in nouns] or words)
