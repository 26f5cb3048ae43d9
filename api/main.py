"""The application. `uvicorn api.main:create_app --factory` reads EGRPO_* from the environment."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import openapi, problems
from api.artifacts.endpoints import router as artifacts
from api.attempts.endpoints import router as attempts
from api.checkpoints.endpoints import router as checkpoints
from api.events.endpoints import router as events
from api.health.endpoints import router as health
from api.jobs.endpoints import router as jobs
from api.metrics.endpoints import router as metrics
from api.models.endpoints import router as models
from api.rewards.endpoints import router as rewards
from api.samples.endpoints import router as samples
from api.services import Services
from jobs.settings import Settings, load
from jobs.spec import JobSpec


def create_app(settings: Settings | None = None) -> FastAPI:
    """Returns the application, which connects to nothing before it must.

    Without settings, as a server's factory, it reads them from the environment and sets up the log of the process.

    Raises:
        SettingsError: naming every variable that is missing or wrong.
    """
    if settings is None:
        settings = load(Settings)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s")
    services = Services.of(settings)
    app = FastAPI(
        title="E-GRPO",
        version=version("egrpo"),
        lifespan=_lifespan,
        redirect_slashes=False,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.services = services
    for router in (jobs, attempts, events, metrics, samples, checkpoints, artifacts, models, rewards, health):
        app.include_router(router)
    problems.install(app)
    openapi.install(app, (JobSpec,))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.start()
    try:
        yield
    finally:
        services.stop()
