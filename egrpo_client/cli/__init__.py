"""The `egrpo` command: jobs and every other resource of the service over HTTP, and the local stack.

Exit codes: 0 done; 1 the job, or the command, failed; 2 wrong usage, or a spec that the service refused; 3 no such
thing; 4 missing or wrong key, or one that may not; 5 the state does not allow it; 6 nobody answers; 7 too much at once;
130 interrupted.
"""

import sys

import typer

from egrpo_client.cli import catalogue, jobs, resources, stack
from egrpo_client.cli.output import print_error
from egrpo_client.errors import ApiError, ClientError, NotConfiguredError, SpecFileError, UnreachableError

app = typer.Typer(
    name="egrpo",
    help="Aligns text-to-image models with a reward: submit jobs, watch them, fetch their adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
jobs.register(app)
catalogue.register(app)
stack.register(app)
resources.register(app)

EXIT_CODES = {400: 2, 401: 4, 403: 4, 404: 3, 409: 5, 412: 5, 413: 2, 415: 2, 422: 2, 429: 7}


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        app()
    except ClientError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `egrpo list | head`
        sys.stderr.close()
        sys.exit(1)


def exit_code(error: ClientError) -> int:
    """Returns the exit code of an error."""
    if isinstance(error, ApiError):
        return EXIT_CODES.get(error.status, 1)
    if isinstance(error, UnreachableError):
        return 6
    if isinstance(error, NotConfiguredError):
        return 4
    return 2 if isinstance(error, SpecFileError) else 1
