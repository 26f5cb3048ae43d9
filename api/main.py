"""The application. `uvicorn api.main:create_app --factory` reads EGRPO_* from the environment."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import openapi, problems
from api.adapters.endpoints import router as adapters
from api.api_keys.endpoints import router as api_keys
from api.api_keys.schemas import NewAPIKey
from api.artifacts.endpoints import router as artifacts
from api.attempts.endpoints import router as attempts
from api.audit_events.endpoints import router as audit_events
from api.checkpoints.endpoints import router as checkpoints
from api.datasets.endpoints import router as datasets
from api.datasets.schemas import NewDataset
from api.events.endpoints import router as events
from api.health.endpoints import router as health
from api.jobs.endpoints import router as jobs
from api.logs.endpoints import router as logs
from api.metrics.endpoints import router as metrics
from api.models.endpoints import router as models
from api.projects.endpoints import router as projects
from api.projects.schemas import NewProject, ProjectChanges
from api.rewards.endpoints import router as rewards
from api.samples.endpoints import router as samples
from api.secrets.endpoints import router as secrets
from api.secrets.schemas import NewSecret, NewValue
from api.services import Services
from api.usage.endpoints import router as usage
from api.validation.endpoints import router as validation
from api.webhooks.endpoints import router as webhooks
from api.webhooks.schemas import NewWebhookEndpoint, WebhookEndpointChanges
from jobs.settings import Settings, load
from jobs.spec import JobChanges, JobSpec

# The bodies of requests, which the endpoints parse themselves.
BODIES = (
    JobSpec,
    JobChanges,
    NewDataset,
    NewAPIKey,
    NewProject,
    ProjectChanges,
    NewSecret,
    NewValue,
    NewWebhookEndpoint,
    WebhookEndpointChanges,
)


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
    for router in (
        jobs,
        validation,
        attempts,
        events,
        logs,
        metrics,
        samples,
        checkpoints,
        artifacts,
        adapters,
        datasets,
        models,
        rewards,
        projects,
        secrets,
        webhooks,
        api_keys,
        audit_events,
        usage,
        health,
    ):
        app.include_router(router)
    problems.install(app)
    openapi.install(app, BODIES)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.start()
    try:
        yield
    finally:
        services.stop()
