"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from egrpo_client.cli.completion import ids_for

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job's id: job_…", show_default=False, autocompletion=ids_for("job_id")),
]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The job, as YAML or JSON.", show_default=False)]
