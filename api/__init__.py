"""The HTTP API: FastAPI over `jobs/`. Never imports torch. Start: `uvicorn api.main:create_app --factory`."""
