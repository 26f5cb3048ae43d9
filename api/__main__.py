"""`python -m api openapi` prints the OpenAPI document; it is kept as `docs/openapi.json`."""

from __future__ import annotations

import argparse
import json
import sys

from pydantic import SecretStr

from api.main import create_app
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
    """Runs one command."""
    parser = argparse.ArgumentParser(prog="python -m api", description="The HTTP API; uvicorn serves it.")
    parser.add_subparsers(dest="command", required=True).add_parser("openapi", help="print the OpenAPI document")
    parser.parse_args(arguments)
    sys.stdout.write(openapi_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
