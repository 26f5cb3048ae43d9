"""One running service for each test, on the real servers, with the real trainer."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_processes import Service

from egrpo import catalogue

SHIPPED = catalogue.MODELS["tiny-flux-shapes"].folder


@pytest.fixture(scope="session")
def tiny_model(request: pytest.FixtureRequest) -> Path:
    """The folder of the model that the jobs train: the shipped one."""
    if SHIPPED is not None and (SHIPPED / "model_index.json").exists():
        return SHIPPED
    folder: Path = request.getfixturevalue("random_flux")
    return folder


@pytest.fixture
def service(service_env: dict[str, str], tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    env = {
        **service_env,
        "EGRPO_HEARTBEAT_SECONDS": "0.5",
        "EGRPO_REAPER_SECONDS": "0.5",
        "EGRPO_POLL_SECONDS": "0.5",
        "EGRPO_RETRY_SECONDS": "0.1",
        "EGRPO_PUBLISH_SECONDS": "0.1",
        "OMP_NUM_THREADS": "1",
    }
    if tiny_model != SHIPPED:
        script = Path(__file__).with_name("trainer_on_folder.py")
        env["EGRPO_TRAINER_COMMAND"] = json.dumps([sys.executable, str(script), str(tiny_model), "train"])
    service = Service(env, tmp_path)
    yield service
    service.close()
