"""What a job may name: base models and rewards."""

import typer

from egrpo_client.cli.output import print_json, print_table
from egrpo_client.cli.parameters import AsJSON
from egrpo_client.sync.client import Client


def register(app: typer.Typer) -> None:
    """Adds `models` and `rewards`, which list them; more can be asked of one of them by a verb."""
    for name, listing in (("models", models), ("rewards", rewards)):
        group = typer.Typer(name=name, help=listing.__doc__, invoke_without_command=True, callback=listing)
        app.add_typer(group)


def models(context: typer.Context, as_json: AsJSON = False) -> None:
    """List the base models that a job may name."""
    if context.invoked_subcommand is not None:
        return
    with Client.from_environment() as client:
        entries = list(client.list_models())
    if as_json:
        print_json(entries)
        return
    rows = [(m["id"], m.get("family"), f"{m.get('width')}×{m.get('height')}", m.get("description")) for m in entries]
    print_table(("ID", "FAMILY", "SIZE", "DESCRIPTION"), rows)


def rewards(context: typer.Context, as_json: AsJSON = False) -> None:
    """List the rewards that a job may name."""
    if context.invoked_subcommand is not None:
        return
    with Client.from_environment() as client:
        entries = list(client.list_rewards())
    if as_json:
        print_json(entries)
        return
    rows = [(entry["type"], entry.get("range"), entry.get("description")) for entry in entries]
    print_table(("TYPE", "RANGE", "DESCRIPTION"), rows)
