"""`python -m api serve` serves the API; `python -m api openapi` prints what is kept as `docs/openapi.json`."""

from __future__ import annotations

import argparse
import json
import sys

from pydantic import SecretStr

from api.main import create_app
from api.server import serve
from jobs.errors import SettingsError
from jobs.settings import Settings


def openapi_text() -> str:
    """Returns the document as it is kept. Nothing is connected to: the settings lead nowhere."""
    nowhere = Settings(
        database_url="postgresql+psycopg://127.0.0.1:1/none",
        broker_url="redis://127.0.0.1:1/0",
        s3_endpoint="http://127.0.0.1:1",
        s3_access_key="none",
        s3_secret_key=SecretStr("none"),
    )
    return json.dumps(create_app(nowhere).openapi(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m api", description="The HTTP API.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("openapi", help="print the OpenAPI document")
    server = commands.add_parser("serve", help="serve the API; settings come from EGRPO_* in the environment")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    if options.command == "openapi":
        sys.stdout.write(openapi_text())
        return 0
    try:
        serve(options.host, options.port)
    except SettingsError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
