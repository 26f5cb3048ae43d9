"""Ids that the shell may complete: the newest ones, asked of the service while somebody types."""

from collections.abc import Callable

from egrpo_client.errors import ClientError
from egrpo_client.exchange import Retries
from egrpo_client.sync.client import Client
from egrpo_client.sync.operations import OPERATIONS

_NEWEST = 50


def ids_for(parameter: str) -> Callable[[str], list[str]] | None:
    """Returns what completes an argument such as `dataset_id`: the ids of `list_datasets`; None if there is no such."""
    method = f"list_{parameter.removesuffix('_id')}s"
    if method not in OPERATIONS or "{" in OPERATIONS[method].path:
        return None

    def ids(incomplete: str) -> list[str]:
        try:
            with Client.from_environment(retries=Retries(attempts=1)) as client:
                rows = list(getattr(client, method)(limit=_NEWEST))
        except ClientError:  # Nobody wants an error in the middle of a line.
            return []
        return [row["id"] for row in rows if row["id"].startswith(incomplete)]

    return ids
