"""GET /healthz and /readyz: no key needed, and they tell no secrets."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api.dependencies import TheServices
from api.health import service
from api.health.schemas import Health, Readiness
from api.openapi import problems
from api.problems import problem

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health")
async def healthz() -> Health:
    """Whether the process answers; it asks nobody else."""
    return Health()


@router.get("/readyz", operation_id="readiness", response_model=Readiness, responses=problems())
async def readyz(request: Request, services: TheServices) -> Readiness | JSONResponse:
    """Whether requests can be served, and what is down. Only the database is needed: jobs wait for the rest."""
    down = await service.down(services)
    checks = {name: "down" if name in down else "up" for name in ("database", "broker", "store")}
    if "database" in down:
        detail = f"down: {', '.join(down)}"
        return problem(
            request.scope,
            status=503,
            code="not_ready",
            title="Not ready",
            detail=detail,
            retryable=True,
            headers={"Retry-After": "2"},
            down=down,
            checks=checks,
        )
    return Readiness.model_validate({"status": "degraded" if down else "ready", "down": down, "checks": checks})
