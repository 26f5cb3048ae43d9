"""One of each thing that a project can have, made when a test asks for it by the name of its path parameter."""

from __future__ import annotations

from typing import Any

from api_bench import SPEC, Bench

from jobs import lifecycle
from jobs.states import Status

BODIES: dict[str, Any] = {
    "updateJob": {"name": "mine now"},
    "replaceSecret": {"value": "mine now, twice"},
    "updateProject": {"name": "mine now"},
    "changeWebhookEndpoint": {"description": "mine now"},
}


class Belongings:
    """What the bench's first project has. An unknown name is an error: whoever adds a route says what to fill in."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        claimed = self._finished_job()
        self.made: dict[str, str] = {
            **claimed,
            "project_id": bench.project,
            "path": "pytorch_lora_weights.safetensors",
            "name": "report.json",
        }

    def __getitem__(self, name: str) -> str:
        if name not in self.made:
            self.made[name] = str(getattr(self, f"_{name}")())
        return self.made[name]

    def ids(self) -> list[str]:
        """Returns the ids of all that was made so far."""
        return [value for name, value in self.made.items() if name.endswith("_id")]

    def _finished_job(self) -> dict[str, str]:
        self.bench.submit()
        claim = self.bench.claim()
        ids = self.bench.finish_files(claim)
        with self.bench.transaction() as session:  # It has ended, so that a stream of its events ends too.
            lifecycle.transition(session, lifecycle.lock(session, claim.job_id), Status.SUCCEEDED, phase="done")
        checkpoint = ids["checkpoint"]
        return {
            "job_id": claim.job_id,
            "sample_id": ids["sample"],
            "checkpoint_id": checkpoint,
            "adapter_id": checkpoint,
        }

    def _post(self, path: str, body: Any = None) -> dict[str, Any]:
        response = self.bench.post(path, body)
        assert response.status_code == 201, response.text
        return dict(response.json())

    def _dataset_id(self) -> str:
        return str(self._post("/v1/datasets", {"name": "d", "splits": {"train": SPEC["prompts"]["inline"]}})["id"])

    def _secret_id(self) -> str:
        return str(self._post("/v1/secrets", {"name": "hub", "value": "hf_canary_of_a_token"})["id"])

    def _key_id(self) -> str:
        return str(self._post("/v1/api-keys", {"name": "ci", "scopes": ["jobs:read"]})["id"])

    def _endpoint_id(self) -> str:
        return str(self._post("/v1/webhook-endpoints", {"url": "https://hooks.example.com/egrpo"})["id"])

    def _delivery_id(self) -> str:
        # A request by chance may have disabled the endpoint.
        url = f"/v1/webhook-endpoints/{self['endpoint_id']}"
        enabled = self.bench.client.patch(url, json={"enabled": True}, headers=self.bench.auth())
        assert enabled.status_code == 200, enabled.text
        return str(self._post(f"{url}/test")["id"])
