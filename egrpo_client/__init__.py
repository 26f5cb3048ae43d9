"""The Python SDK of the service, the `egrpo` command, and the local stack.

    with Client.from_environment() as client:
        job = client.submit({"base_model": "tiny-flux-shapes", …})
        job.wait()
        job.download(Path("out"))

`AsyncClient` has the same methods, to be awaited. Answers are the service's JSON objects; `models` has their types.
"""

from egrpo_client.aio.client import AsyncClient
from egrpo_client.aio.job import AsyncJob
from egrpo_client.connection import Connection
from egrpo_client.drafts import Downloaded
from egrpo_client.exchange import Retries
from egrpo_client.sync.client import Client
from egrpo_client.sync.job import Job
from egrpo_client.watching import Update

__all__ = ["AsyncClient", "AsyncJob", "Client", "Connection", "Downloaded", "Job", "Retries", "Update"]
