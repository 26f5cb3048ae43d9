"""One running service for each test, on the real servers, with the real trainer on the shipped model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_processes import Service


@pytest.fixture
def service(service_env: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    env = {
        **service_env,
        "EGRPO_HEARTBEAT_SECONDS": "0.5",
        "EGRPO_REAPER_SECONDS": "0.5",
        "EGRPO_POLL_SECONDS": "0.5",
        "EGRPO_RETRY_SECONDS": "0.1",
        "EGRPO_PUBLISH_SECONDS": "0.1",
        "OMP_NUM_THREADS": "1",
        # Nothing here is about a database that does not answer, and a busy machine can keep it from answering.
        "EGRPO_DATABASE_CONNECT_TIMEOUT_SECONDS": "60",
        "EGRPO_DATABASE_STATEMENT_TIMEOUT_SECONDS": "60",
    }
    service = Service(env, tmp_path)
    yield service
    service.close()
