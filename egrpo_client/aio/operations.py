# Made from the OpenAPI document: python -m contract write
"""One method for each operation of the service."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from egrpo_client import models
from egrpo_client.aio.files import save
from egrpo_client.aio.transport import AsyncTransport
from egrpo_client.drafts import Downloaded
from egrpo_client.exchange import Event, Operation, Request, new_key, quoted, quoted_path

OPERATIONS = {
    "create_job": Operation("createJob", "POST", "/v1/jobs", "jobs"),
    "list_jobs": Operation("listJobs", "GET", "/v1/jobs", "jobs"),
    "get_job": Operation("getJob", "GET", "/v1/jobs/{job_id}", "jobs"),
    "update_job": Operation("updateJob", "PATCH", "/v1/jobs/{job_id}", "jobs"),
    "cancel_job": Operation("cancelJob", "POST", "/v1/jobs/{job_id}/cancel", "jobs"),
    "pause_job": Operation("pauseJob", "POST", "/v1/jobs/{job_id}/pause", "jobs"),
    "resume_job": Operation("resumeJob", "POST", "/v1/jobs/{job_id}/resume", "jobs"),
    "retry_job": Operation("retryJob", "POST", "/v1/jobs/{job_id}/retry", "jobs"),
    "validate_job": Operation("validateJob", "POST", "/v1/jobs/validate", "jobs"),
    "list_attempts": Operation("listAttempts", "GET", "/v1/jobs/{job_id}/attempts", "attempts"),
    "list_events": Operation("listEvents", "GET", "/v1/jobs/{job_id}/events", "events"),
    "stream_events": Operation("streamEvents", "GET", "/v1/jobs/{job_id}/events/stream", "events"),
    "list_log_lines": Operation("listLogLines", "GET", "/v1/jobs/{job_id}/logs", "logs"),
    "list_metrics": Operation("listMetrics", "GET", "/v1/jobs/{job_id}/metrics", "metrics"),
    "list_samples": Operation("listSamples", "GET", "/v1/jobs/{job_id}/samples", "samples"),
    "get_sample_image": Operation("getSampleImage", "GET", "/v1/jobs/{job_id}/samples/{sample_id}/image", "samples"),
    "list_checkpoints": Operation("listCheckpoints", "GET", "/v1/jobs/{job_id}/checkpoints", "checkpoints"),
    "get_checkpoint": Operation("getCheckpoint", "GET", "/v1/jobs/{job_id}/checkpoints/{checkpoint_id}", "checkpoints"),
    "delete_checkpoint": Operation(
        "deleteCheckpoint", "DELETE", "/v1/jobs/{job_id}/checkpoints/{checkpoint_id}", "checkpoints"
    ),
    "pin_checkpoint": Operation(
        "pinCheckpoint", "POST", "/v1/jobs/{job_id}/checkpoints/{checkpoint_id}/pin", "checkpoints"
    ),
    "unpin_checkpoint": Operation(
        "unpinCheckpoint", "POST", "/v1/jobs/{job_id}/checkpoints/{checkpoint_id}/unpin", "checkpoints"
    ),
    "get_checkpoint_file": Operation(
        "getCheckpointFile", "GET", "/v1/jobs/{job_id}/checkpoints/{checkpoint_id}/files/{path}", "checkpoints"
    ),
    "list_artifacts": Operation("listArtifacts", "GET", "/v1/jobs/{job_id}/artifacts", "artifacts"),
    "get_artifact": Operation("getArtifact", "GET", "/v1/jobs/{job_id}/artifacts/{name}", "artifacts"),
    "list_adapters": Operation("listAdapters", "GET", "/v1/adapters", "adapters"),
    "get_adapter": Operation("getAdapter", "GET", "/v1/adapters/{adapter_id}", "adapters"),
    "delete_adapter": Operation("deleteAdapter", "DELETE", "/v1/adapters/{adapter_id}", "adapters"),
    "get_adapter_file": Operation("getAdapterFile", "GET", "/v1/adapters/{adapter_id}/files/{path}", "adapters"),
    "create_dataset": Operation("createDataset", "POST", "/v1/datasets", "datasets"),
    "list_datasets": Operation("listDatasets", "GET", "/v1/datasets", "datasets"),
    "get_dataset": Operation("getDataset", "GET", "/v1/datasets/{dataset_id}", "datasets"),
    "delete_dataset": Operation("deleteDataset", "DELETE", "/v1/datasets/{dataset_id}", "datasets"),
    "list_dataset_prompts": Operation("listDatasetPrompts", "GET", "/v1/datasets/{dataset_id}/prompts", "datasets"),
    "list_models": Operation("listModels", "GET", "/v1/models", "catalogue"),
    "get_model": Operation("getModel", "GET", "/v1/models/{model_id}", "catalogue"),
    "list_rewards": Operation("listRewards", "GET", "/v1/rewards", "catalogue"),
    "get_reward": Operation("getReward", "GET", "/v1/rewards/{type}", "catalogue"),
    "create_project": Operation("createProject", "POST", "/v1/projects", "access"),
    "list_projects": Operation("listProjects", "GET", "/v1/projects", "access"),
    "get_project": Operation("getProject", "GET", "/v1/projects/{project_id}", "access"),
    "update_project": Operation("updateProject", "PATCH", "/v1/projects/{project_id}", "access"),
    "create_secret": Operation("createSecret", "POST", "/v1/secrets", "secrets"),
    "list_secrets": Operation("listSecrets", "GET", "/v1/secrets", "secrets"),
    "get_secret": Operation("getSecret", "GET", "/v1/secrets/{secret_id}", "secrets"),
    "replace_secret": Operation("replaceSecret", "PUT", "/v1/secrets/{secret_id}", "secrets"),
    "delete_secret": Operation("deleteSecret", "DELETE", "/v1/secrets/{secret_id}", "secrets"),
    "create_webhook_endpoint": Operation("createWebhookEndpoint", "POST", "/v1/webhook-endpoints", "webhooks"),
    "list_webhook_endpoints": Operation("listWebhookEndpoints", "GET", "/v1/webhook-endpoints", "webhooks"),
    "get_webhook_endpoint": Operation("getWebhookEndpoint", "GET", "/v1/webhook-endpoints/{endpoint_id}", "webhooks"),
    "change_webhook_endpoint": Operation(
        "changeWebhookEndpoint", "PATCH", "/v1/webhook-endpoints/{endpoint_id}", "webhooks"
    ),
    "delete_webhook_endpoint": Operation(
        "deleteWebhookEndpoint", "DELETE", "/v1/webhook-endpoints/{endpoint_id}", "webhooks"
    ),
    "rotate_webhook_secret": Operation(
        "rotateWebhookSecret", "POST", "/v1/webhook-endpoints/{endpoint_id}/rotate-secret", "webhooks"
    ),
    "test_webhook_endpoint": Operation(
        "testWebhookEndpoint", "POST", "/v1/webhook-endpoints/{endpoint_id}/test", "webhooks"
    ),
    "list_webhook_deliveries": Operation(
        "listWebhookDeliveries", "GET", "/v1/webhook-endpoints/{endpoint_id}/deliveries", "webhooks"
    ),
    "get_webhook_delivery": Operation(
        "getWebhookDelivery", "GET", "/v1/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}", "webhooks"
    ),
    "redeliver_webhook": Operation(
        "redeliverWebhook", "POST", "/v1/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver", "webhooks"
    ),
    "create_api_key": Operation("createApiKey", "POST", "/v1/api-keys", "access"),
    "list_api_keys": Operation("listApiKeys", "GET", "/v1/api-keys", "access"),
    "get_api_key": Operation("getApiKey", "GET", "/v1/api-keys/{key_id}", "access"),
    "revoke_api_key": Operation("revokeApiKey", "DELETE", "/v1/api-keys/{key_id}", "access"),
    "rotate_api_key": Operation("rotateApiKey", "POST", "/v1/api-keys/{key_id}/rotate", "access"),
    "list_audit_events": Operation("listAuditEvents", "GET", "/v1/audit-events", "access"),
    "list_usage": Operation("listUsage", "GET", "/v1/usage", "access"),
    "health": Operation("health", "GET", "/healthz", "health"),
    "readiness": Operation("readiness", "GET", "/readyz", "health"),
}


class AsyncOperations(AsyncTransport):
    """The operations of the service."""

    async def create_job(self, body: models.JobSpec, *, idempotency_key: str | None = None) -> models.JobBody:
        """Queues an alignment job. Everything but `base_model`, `prompts` and `reward` has a default that works."""
        answer: models.JobBody = await self._json(
            Request("POST", "/v1/jobs", headers={"Idempotency-Key": idempotency_key or new_key()}, body=body)
        )
        return answer

    def list_jobs(
        self,
        *,
        limit: int | None = None,
        status: list[models.Status] | None = None,
        name: str | None = None,
        base_model: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        metadata: dict[str, str] | None = None,
        order: Literal["desc", "asc"] | None = None,
    ) -> AsyncIterator[models.JobSummary]:
        """Jobs of the project, newest first, without their specs.

        Args:
            status: any of these
            name: exactly this name
            base_model: catalogue id, or repo@revision
            created_after: at this time or later, with its offset
            created_before: before this time, with its offset
            metadata: as in `metadata[ticket]=ML-88`: all of these pairs
            order: newest or oldest first
        """
        return self._rows(
            Request(
                "GET",
                "/v1/jobs",
                params={
                    "status": status,
                    "name": name,
                    "base_model": base_model,
                    "created_after": created_after,
                    "created_before": created_before,
                    "metadata": metadata,
                    "order": order,
                },
            ),
            limit,
            200,
        )

    async def get_job(self, job_id: str) -> models.JobBody:
        """One job: status, progress, place in the queue, and the spec with every default filled in."""
        answer: models.JobBody = await self._json(Request("GET", f"/v1/jobs/{quoted(job_id)}"))
        return answer

    async def update_job(self, job_id: str, body: models.JobChanges, *, if_match: str | None = None) -> models.JobBody:
        """Renames a job, or replaces its metadata or limits, at any time. Its spec stays what was submitted.

        Args:
            if_match: An `ETag`, or as `"12"` its version alone: changes that version and no other. Without it:
                any.
        """
        answer: models.JobBody = await self._json(
            Request("PATCH", f"/v1/jobs/{quoted(job_id)}", headers={"If-Match": if_match}, body=body)
        )
        return answer

    async def cancel_job(self, job_id: str, *, idempotency_key: str | None = None) -> models.JobBody:
        """Cancels a queued job at once; a running one becomes `cancelling`, and its last checkpoint is kept."""
        answer: models.JobBody = await self._json(
            Request(
                "POST", f"/v1/jobs/{quoted(job_id)}/cancel", headers={"Idempotency-Key": idempotency_key or new_key()}
            )
        )
        return answer

    async def pause_job(self, job_id: str, *, idempotency_key: str | None = None) -> models.JobBody:
        """Pauses a queued job at once; a running one becomes `pausing`, commits a checkpoint and frees its worker."""
        answer: models.JobBody = await self._json(
            Request(
                "POST", f"/v1/jobs/{quoted(job_id)}/pause", headers={"Idempotency-Key": idempotency_key or new_key()}
            )
        )
        return answer

    async def resume_job(self, job_id: str, *, idempotency_key: str | None = None) -> models.JobBody:
        """Queues a paused job again; it goes on from its last checkpoint."""
        answer: models.JobBody = await self._json(
            Request(
                "POST", f"/v1/jobs/{quoted(job_id)}/resume", headers={"Idempotency-Key": idempotency_key or new_key()}
            )
        )
        return answer

    async def retry_job(self, job_id: str, *, idempotency_key: str | None = None) -> models.JobBody:
        """Queues a failed or cancelled job again; it goes on from its last checkpoint, or starts again without one."""
        answer: models.JobBody = await self._json(
            Request(
                "POST", f"/v1/jobs/{quoted(job_id)}/retry", headers={"Idempotency-Key": idempotency_key or new_key()}
            )
        )
        return answer

    async def validate_job(self, body: models.JobSpec) -> models.ValidationBody:
        """What a job would do and take. Nothing is stored; a wrong spec gets the problem that `createJob` gives."""
        answer: models.ValidationBody = await self._json(Request("POST", "/v1/jobs/validate", body=body))
        return answer

    def list_attempts(self, job_id: str, *, limit: int | None = None) -> AsyncIterator[models.AttemptBody]:
        """Attempts of the job, the first one first: which worker, from which step, and how each ended."""
        return self._rows(Request("GET", f"/v1/jobs/{quoted(job_id)}/attempts"), limit, 200)

    async def list_events(
        self, job_id: str, *, after: int | None = None, wait: float | None = None, limit: int | None = None
    ) -> models.EventList:
        """Events after `after`, in order. With `wait` the answer comes when there is one, or when the job has ended.

        Args:
            after: events with a `seq` above this
            wait: seconds to wait for one if there is none yet
        """
        answer: models.EventList = await self._json(
            Request("GET", f"/v1/jobs/{quoted(job_id)}/events", params={"after": after, "wait": wait, "limit": limit})
        )
        return answer

    def stream_events(
        self, job_id: str, *, after: int | None = None, last_event_id: int | None = None
    ) -> AsyncIterator[Event]:
        """Events as they come, as server-sent events named by their type, with `seq` as id, until `done`.

        A `job` event without an id follows each batch and shows the job as it is then. A comment every 15 seconds
        of silence is a sign of life. A stream that ends without `done` is to be opened again with `Last-Event-
        ID`.

        Args:
            after: events with a `seq` above this
            last_event_id: goes on behind this event; wins over `after`
        """
        return self._stream(
            Request(
                "GET",
                f"/v1/jobs/{quoted(job_id)}/events/stream",
                params={"after": after},
                headers={"Last-Event-ID": last_event_id},
            )
        )

    def list_log_lines(
        self,
        job_id: str,
        *,
        limit: int | None = None,
        attempt: int | None = None,
        source: list[Literal["output", "trainer", "supervisor"]] | None = None,
        tail: int | None = None,
    ) -> AsyncIterator[models.LogLineBody]:
        """Lines of the job's log through all attempts, the oldest first, or with `tail` the last ones.

        To follow it, ask again with `cursor` and `wait`: the answer comes when there is a line, or when none can
        come. Only the newest 20 000 lines of a job are kept. Secrets are taken out before a line is written.

        Args:
            attempt: of this attempt only
            source: any of these
            tail: the last lines instead of the first; not together with `cursor`
        """
        return self._rows(
            Request(
                "GET", f"/v1/jobs/{quoted(job_id)}/logs", params={"attempt": attempt, "source": source, "tail": tail}
            ),
            limit,
            200,
        )

    async def list_log_lines_page(
        self,
        job_id: str,
        *,
        cursor: str | None = None,
        limit: int | None = None,
        attempt: int | None = None,
        source: list[Literal["output", "trainer", "supervisor"]] | None = None,
        tail: int | None = None,
        wait: float | None = None,
    ) -> models.LogLines:
        """Lines of the job's log through all attempts, the oldest first, or with `tail` the last ones.

        To follow it, ask again with `cursor` and `wait`: the answer comes when there is a line, or when none can
        come. Only the newest 20 000 lines of a job are kept. Secrets are taken out before a line is written.

        Args:
            attempt: of this attempt only
            source: any of these
            tail: the last lines instead of the first; not together with `cursor`
            wait: seconds to wait for a line if there is none yet
        """
        answer: models.LogLines = await self._json(
            Request(
                "GET",
                f"/v1/jobs/{quoted(job_id)}/logs",
                params={
                    "cursor": cursor,
                    "limit": limit,
                    "attempt": attempt,
                    "source": source,
                    "tail": tail,
                    "wait": wait,
                },
            )
        )
        return answer

    def list_metrics(
        self,
        job_id: str,
        *,
        limit: int | None = None,
        names: list[str] | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> AsyncIterator[models.MetricBody]:
        """Numbers of the job by step and name: pages of JSON for curves, or everything as CSV or one JSON object a
        line.

        Args:
            limit: JSON only; 20000 if left out
            names: repeated, or separated by commas; all if left out
            max_points: most rows of a name: the first, the last, and the lowest and highest of even stretches of
                steps; if left out 2000 in JSON, and every row as CSV and NDJSON
        """
        return self._rows(
            Request(
                "GET",
                f"/v1/jobs/{quoted(job_id)}/metrics",
                params={"names": names, "from_step": from_step, "to_step": to_step, "max_points": max_points},
            ),
            limit,
            20000,
        )

    async def list_metrics_text(
        self,
        job_id: str,
        *,
        format: Literal["csv", "ndjson"],
        names: list[str] | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> str:
        """Numbers of the job by step and name: pages of JSON for curves, or everything as CSV or one JSON object a
        line.

        Args:
            names: repeated, or separated by commas; all if left out
            max_points: most rows of a name: the first, the last, and the lowest and highest of even stretches of
                steps; if left out 2000 in JSON, and every row as CSV and NDJSON
        """
        return (
            await self._bytes(
                Request(
                    "GET",
                    f"/v1/jobs/{quoted(job_id)}/metrics",
                    params={
                        "names": names,
                        "from_step": from_step,
                        "to_step": to_step,
                        "max_points": max_points,
                        "format": format,
                    },
                )
            )
        ).decode()

    def list_samples(
        self,
        job_id: str,
        *,
        limit: int | None = None,
        step: int | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        kind: str | None = None,
        prompt_index: int | None = None,
    ) -> AsyncIterator[models.SampleBody]:
        """Images that the job drew, oldest first.

        Args:
            step: of this step
            from_step: of this step or a later one
            to_step: of this step or an earlier one
            kind: `evaluation`, `best` or `worst`
            prompt_index: of this prompt of the evaluation
        """
        return self._rows(
            Request(
                "GET",
                f"/v1/jobs/{quoted(job_id)}/samples",
                params={
                    "step": step,
                    "from_step": from_step,
                    "to_step": to_step,
                    "kind": kind,
                    "prompt_index": prompt_index,
                },
            ),
            limit,
            200,
        )

    async def get_sample_image(self, job_id: str, sample_id: str) -> bytes:
        """The image of a sample."""
        return await self._bytes(Request("GET", f"/v1/jobs/{quoted(job_id)}/samples/{quoted(sample_id)}/image"))

    async def save_sample_image(self, job_id: str, sample_id: str, target: Path) -> Downloaded:
        """Downloads it in parts if need be, checks its sha256, and only then gives it the name of the target."""
        return await save(self, f"/v1/jobs/{quoted(job_id)}/samples/{quoted(sample_id)}/image", target)

    def list_checkpoints(
        self, job_id: str, *, limit: int | None = None, kind: Literal["state", "adapter"] | None = None
    ) -> AsyncIterator[models.CheckpointBody]:
        """Committed checkpoints, oldest first, each with the sha256 of every file."""
        return self._rows(Request("GET", f"/v1/jobs/{quoted(job_id)}/checkpoints", params={"kind": kind}), limit, 200)

    async def get_checkpoint(self, job_id: str, checkpoint_id: str) -> models.CheckpointBody:
        """One checkpoint with its manifest: size and sha256 of every file."""
        answer: models.CheckpointBody = await self._json(
            Request("GET", f"/v1/jobs/{quoted(job_id)}/checkpoints/{quoted(checkpoint_id)}")
        )
        return answer

    async def delete_checkpoint(self, job_id: str, checkpoint_id: str) -> None:
        """Deletes a checkpoint. Refused for a pinned one, the job's adapter, and what a job would resume from."""
        await self._empty(Request("DELETE", f"/v1/jobs/{quoted(job_id)}/checkpoints/{quoted(checkpoint_id)}"))

    async def pin_checkpoint(
        self, job_id: str, checkpoint_id: str, *, idempotency_key: str | None = None
    ) -> models.CheckpointBody:
        """Keeps a checkpoint whatever `checkpoint.keep_last` and `keep_best` say, until it is unpinned."""
        answer: models.CheckpointBody = await self._json(
            Request(
                "POST",
                f"/v1/jobs/{quoted(job_id)}/checkpoints/{quoted(checkpoint_id)}/pin",
                headers={"Idempotency-Key": idempotency_key or new_key()},
            )
        )
        return answer

    async def unpin_checkpoint(
        self, job_id: str, checkpoint_id: str, *, idempotency_key: str | None = None
    ) -> models.CheckpointBody:
        """Leaves a checkpoint to retention again."""
        answer: models.CheckpointBody = await self._json(
            Request(
                "POST",
                f"/v1/jobs/{quoted(job_id)}/checkpoints/{quoted(checkpoint_id)}/unpin",
                headers={"Idempotency-Key": idempotency_key or new_key()},
            )
        )
        return answer

    async def get_checkpoint_file(self, job_id: str, checkpoint_id: str, path: str) -> bytes:
        """One file. `Range` continues a cut download; the ETag is the file's sha256."""
        return await self._bytes(
            Request("GET", f"/v1/jobs/{quoted(job_id)}/checkpoints/{quoted(checkpoint_id)}/files/{quoted_path(path)}")
        )

    async def save_checkpoint_file(self, job_id: str, checkpoint_id: str, path: str, target: Path) -> Downloaded:
        """Downloads it in parts if need be, checks its sha256, and only then gives it the name of the target."""
        return await save(
            self, f"/v1/jobs/{quoted(job_id)}/checkpoints/{quoted(checkpoint_id)}/files/{quoted_path(path)}", target
        )

    def list_artifacts(self, job_id: str, *, limit: int | None = None) -> AsyncIterator[models.ArtifactBody]:
        """Files beside the adapter: report, contact sheet, reward curve."""
        return self._rows(Request("GET", f"/v1/jobs/{quoted(job_id)}/artifacts"), limit, 200)

    async def get_artifact(self, job_id: str, name: str) -> bytes:
        """One artifact."""
        return await self._bytes(Request("GET", f"/v1/jobs/{quoted(job_id)}/artifacts/{quoted(name)}"))

    async def save_artifact(self, job_id: str, name: str, target: Path) -> Downloaded:
        """Downloads it in parts if need be, checks its sha256, and only then gives it the name of the target."""
        return await save(self, f"/v1/jobs/{quoted(job_id)}/artifacts/{quoted(name)}", target)

    def list_adapters(
        self,
        *,
        limit: int | None = None,
        name: str | None = None,
        base_model: str | None = None,
        format: Literal["diffusers", "peft", "comfyui"] | None = None,
    ) -> AsyncIterator[models.AdapterBody]:
        """Adapters of the jobs that succeeded, those of the newest jobs first.

        Args:
            name: of a job with exactly this name
            base_model: catalogue id, or repo@revision
            format: that can be had in this format
        """
        return self._rows(
            Request("GET", "/v1/adapters", params={"name": name, "base_model": base_model, "format": format}),
            limit,
            200,
        )

    async def get_adapter(self, adapter_id: str) -> models.AdapterBody:
        """One adapter: what it was made from, its formats, and size and sha256 of every file."""
        answer: models.AdapterBody = await self._json(Request("GET", f"/v1/adapters/{quoted(adapter_id)}"))
        return answer

    async def delete_adapter(self, adapter_id: str) -> None:
        """Deletes an adapter for good. Its job stays, with metrics, samples and checkpoints. Refused for a pinned
        one.
        """
        await self._empty(Request("DELETE", f"/v1/adapters/{quoted(adapter_id)}"))

    async def get_adapter_file(self, adapter_id: str, path: str) -> bytes:
        """One file. `Range` continues a cut download; the ETag is the file's sha256."""
        return await self._bytes(Request("GET", f"/v1/adapters/{quoted(adapter_id)}/files/{quoted_path(path)}"))

    async def save_adapter_file(self, adapter_id: str, path: str, target: Path) -> Downloaded:
        """Downloads it in parts if need be, checks its sha256, and only then gives it the name of the target."""
        return await save(self, f"/v1/adapters/{quoted(adapter_id)}/files/{quoted_path(path)}", target)

    async def create_dataset(
        self,
        body: models.NewDataset | bytes,
        *,
        content_type: Literal[
            "application/json", "application/jsonl", "application/x-ndjson", "text/plain"
        ] = "application/json",
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> models.DatasetBody:
        """Stores a prompt set: as JSON, or as a file of JSON Lines (`{"prompt", "split"}`) or of one prompt a line.

        Args:
            name: of the dataset; required for a file, not for JSON
        """
        answer: models.DatasetBody = await self._json(
            Request(
                "POST",
                "/v1/datasets",
                params={"name": name},
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body=body,
                content_type=content_type,
            )
        )
        return answer

    def list_datasets(self, *, limit: int | None = None, name: str | None = None) -> AsyncIterator[models.DatasetBody]:
        """Datasets of the project, newest first.

        Args:
            name: exactly this name
        """
        return self._rows(Request("GET", "/v1/datasets", params={"name": name}), limit, 200)

    async def get_dataset(self, dataset_id: str) -> models.DatasetBody:
        """One dataset: its splits and their sizes."""
        answer: models.DatasetBody = await self._json(Request("GET", f"/v1/datasets/{quoted(dataset_id)}"))
        return answer

    async def delete_dataset(self, dataset_id: str) -> None:
        """Deletes the prompts; refused while a job that has not ended names the dataset."""
        await self._empty(Request("DELETE", f"/v1/datasets/{quoted(dataset_id)}"))

    def list_dataset_prompts(
        self, dataset_id: str, *, limit: int | None = None, split: str | None = None
    ) -> AsyncIterator[str]:
        """The prompts of a split, in their order."""
        return self._rows(
            Request("GET", f"/v1/datasets/{quoted(dataset_id)}/prompts", params={"split": split}), limit, 200
        )

    def list_models(self, *, limit: int | None = None) -> AsyncIterator[models.ModelBody]:
        """Base models that a job may name."""
        return self._rows(Request("GET", "/v1/models"), limit, 200)

    async def get_model(self, model_id: str) -> models.ModelBody:
        """One base model: its family, its repository at a full commit, and how it is trained and sampled by default."""
        answer: models.ModelBody = await self._json(Request("GET", f"/v1/models/{quoted(model_id)}"))
        return answer

    def list_rewards(self, *, limit: int | None = None) -> AsyncIterator[models.RewardBody]:
        """Rewards that a job may name."""
        return self._rows(Request("GET", "/v1/rewards"), limit, 200)

    async def get_reward(self, type: str) -> models.RewardBody:
        """One reward: the range of its scores, what it needs, and the schema of its parameters."""
        answer: models.RewardBody = await self._json(Request("GET", f"/v1/rewards/{quoted(type)}"))
        return answer

    async def create_project(
        self, body: models.NewProject, *, idempotency_key: str | None = None
    ) -> models.ProjectBody:
        """Makes a project. Its first key comes from `POST /v1/api-keys?project_id=…`."""
        answer: models.ProjectBody = await self._json(
            Request("POST", "/v1/projects", headers={"Idempotency-Key": idempotency_key or new_key()}, body=body)
        )
        return answer

    def list_projects(self, *, limit: int | None = None) -> AsyncIterator[models.ProjectSummary]:
        """The caller's project; for an administrator all of them, newest first."""
        return self._rows(Request("GET", "/v1/projects"), limit, 200)

    async def get_project(self, project_id: str) -> models.ProjectBody:
        """One project: its limits, and what it uses of them."""
        answer: models.ProjectBody = await self._json(Request("GET", f"/v1/projects/{quoted(project_id)}"))
        return answer

    async def update_project(
        self, project_id: str, body: models.ProjectChanges, *, if_match: str | None = None
    ) -> models.ProjectBody:
        """Renames a project or changes its limits. A lower limit stops nothing that runs.

        Args:
            if_match: An `ETag`, or as `"12"` its version alone: changes that version and no other. Without it:
                any.
        """
        answer: models.ProjectBody = await self._json(
            Request("PATCH", f"/v1/projects/{quoted(project_id)}", headers={"If-Match": if_match}, body=body)
        )
        return answer

    async def create_secret(self, body: models.NewSecret, *, idempotency_key: str | None = None) -> models.SecretBody:
        """Keeps a value, encrypted, for jobs to use by its id. It is never shown again."""
        answer: models.SecretBody = await self._json(
            Request("POST", "/v1/secrets", headers={"Idempotency-Key": idempotency_key or new_key()}, body=body)
        )
        return answer

    def list_secrets(self, *, limit: int | None = None) -> AsyncIterator[models.SecretBody]:
        """Secrets of the project without their values, newest first."""
        return self._rows(Request("GET", "/v1/secrets"), limit, 200)

    async def get_secret(self, secret_id: str) -> models.SecretBody:
        """One secret without its value: when it was replaced and last used."""
        answer: models.SecretBody = await self._json(Request("GET", f"/v1/secrets/{quoted(secret_id)}"))
        return answer

    async def replace_secret(self, secret_id: str, body: models.NewValue) -> models.SecretBody:
        """Gives a secret another value: attempts of jobs that start from now on get that one."""
        answer: models.SecretBody = await self._json(Request("PUT", f"/v1/secrets/{quoted(secret_id)}", body=body))
        return answer

    async def delete_secret(self, secret_id: str) -> None:
        """Deletes a secret at once; a job that names it fails at its next attempt, with `secret_missing`."""
        await self._empty(Request("DELETE", f"/v1/secrets/{quoted(secret_id)}"))

    async def create_webhook_endpoint(
        self, body: models.NewWebhookEndpoint, *, idempotency_key: str | None = None
    ) -> models.IssuedWebhookEndpointBody:
        """Tells a URL what happens from now on, signed with a secret that is shown this once."""
        answer: models.IssuedWebhookEndpointBody = await self._json(
            Request(
                "POST", "/v1/webhook-endpoints", headers={"Idempotency-Key": idempotency_key or new_key()}, body=body
            )
        )
        return answer

    def list_webhook_endpoints(self, *, limit: int | None = None) -> AsyncIterator[models.WebhookEndpointBody]:
        """Webhook endpoints of the project, newest first."""
        return self._rows(Request("GET", "/v1/webhook-endpoints"), limit, 200)

    async def get_webhook_endpoint(self, endpoint_id: str) -> models.WebhookEndpointBody:
        """One webhook endpoint: whether it is enabled, and since when it fails."""
        answer: models.WebhookEndpointBody = await self._json(
            Request("GET", f"/v1/webhook-endpoints/{quoted(endpoint_id)}")
        )
        return answer

    async def change_webhook_endpoint(
        self, endpoint_id: str, body: models.WebhookEndpointChanges
    ) -> models.WebhookEndpointBody:
        """Changes a webhook endpoint; `enabled` disables it, and enables one that was disabled for failing."""
        answer: models.WebhookEndpointBody = await self._json(
            Request("PATCH", f"/v1/webhook-endpoints/{quoted(endpoint_id)}", body=body)
        )
        return answer

    async def delete_webhook_endpoint(self, endpoint_id: str) -> None:
        """Deletes a webhook endpoint and its deliveries."""
        await self._empty(Request("DELETE", f"/v1/webhook-endpoints/{quoted(endpoint_id)}"))

    async def rotate_webhook_secret(
        self, endpoint_id: str, *, overlap_seconds: int | None = None, idempotency_key: str | None = None
    ) -> models.IssuedWebhookEndpointBody:
        """Signs with a new secret, shown this once, and for a while with the old one as well.

        Args:
            overlap_seconds: how long the old secret signs as well
        """
        answer: models.IssuedWebhookEndpointBody = await self._json(
            Request(
                "POST",
                f"/v1/webhook-endpoints/{quoted(endpoint_id)}/rotate-secret",
                params={"overlap_seconds": overlap_seconds},
                headers={"Idempotency-Key": idempotency_key or new_key()},
            )
        )
        return answer

    async def test_webhook_endpoint(
        self, endpoint_id: str, *, idempotency_key: str | None = None
    ) -> models.WebhookDeliveryBody:
        """Sends a `webhook.ping`; the delivery shows what became of it."""
        answer: models.WebhookDeliveryBody = await self._json(
            Request(
                "POST",
                f"/v1/webhook-endpoints/{quoted(endpoint_id)}/test",
                headers={"Idempotency-Key": idempotency_key or new_key()},
            )
        )
        return answer

    def list_webhook_deliveries(
        self,
        endpoint_id: str,
        *,
        limit: int | None = None,
        status: list[Literal["pending", "delivered", "failed"]] | None = None,
        type: str | None = None,
    ) -> AsyncIterator[models.WebhookDeliveryBody]:
        """Messages to a webhook endpoint, newest first, and what became of them."""
        return self._rows(
            Request(
                "GET",
                f"/v1/webhook-endpoints/{quoted(endpoint_id)}/deliveries",
                params={"status": status, "type": type},
            ),
            limit,
            200,
        )

    async def get_webhook_delivery(self, endpoint_id: str, delivery_id: str) -> models.WebhookDeliveryBody:
        """One message to a webhook endpoint."""
        answer: models.WebhookDeliveryBody = await self._json(
            Request("GET", f"/v1/webhook-endpoints/{quoted(endpoint_id)}/deliveries/{quoted(delivery_id)}")
        )
        return answer

    async def redeliver_webhook(
        self, endpoint_id: str, delivery_id: str, *, idempotency_key: str | None = None
    ) -> models.WebhookDeliveryBody:
        """Sends a message again, with the same `webhook-id`, whatever became of it."""
        answer: models.WebhookDeliveryBody = await self._json(
            Request(
                "POST",
                f"/v1/webhook-endpoints/{quoted(endpoint_id)}/deliveries/{quoted(delivery_id)}/redeliver",
                headers={"Idempotency-Key": idempotency_key or new_key()},
            )
        )
        return answer

    async def create_api_key(
        self, body: models.NewAPIKey, *, project_id: str | None = None, idempotency_key: str | None = None
    ) -> models.IssuedAPIKeyBody:
        """Issues a key and shows it, this once. It can do no more than the key that asks for it.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
        """
        answer: models.IssuedAPIKeyBody = await self._json(
            Request(
                "POST",
                "/v1/api-keys",
                params={"project_id": project_id},
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body=body,
            )
        )
        return answer

    def list_api_keys(
        self, *, project_id: str | None = None, limit: int | None = None
    ) -> AsyncIterator[models.APIKeyBody]:
        """Keys of the project, newest first, also those that were revoked or have expired.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
        """
        return self._rows(Request("GET", "/v1/api-keys", params={"project_id": project_id}), limit, 200)

    async def get_api_key(self, key_id: str, *, project_id: str | None = None) -> models.APIKeyBody:
        """One key: what it may do, when it was last used, when its time ends.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
        """
        answer: models.APIKeyBody = await self._json(
            Request("GET", f"/v1/api-keys/{quoted(key_id)}", params={"project_id": project_id})
        )
        return answer

    async def revoke_api_key(self, key_id: str, *, project_id: str | None = None) -> None:
        """Makes a key invalid from now on; the list still shows it.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
        """
        await self._empty(Request("DELETE", f"/v1/api-keys/{quoted(key_id)}", params={"project_id": project_id}))

    async def rotate_api_key(
        self,
        key_id: str,
        *,
        project_id: str | None = None,
        overlap_seconds: int | None = None,
        idempotency_key: str | None = None,
    ) -> models.IssuedAPIKeyBody:
        """Issues a key with the same name, scopes and expiry, and shows it, this once; the old one ends.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
            overlap_seconds: how long the old key stays valid
        """
        answer: models.IssuedAPIKeyBody = await self._json(
            Request(
                "POST",
                f"/v1/api-keys/{quoted(key_id)}/rotate",
                params={"project_id": project_id, "overlap_seconds": overlap_seconds},
                headers={"Idempotency-Key": idempotency_key or new_key()},
            )
        )
        return answer

    def list_audit_events(
        self,
        *,
        project_id: str | None = None,
        limit: int | None = None,
        action: str | None = None,
        key_id: str | None = None,
        target_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
    ) -> AsyncIterator[models.AuditEventBody]:
        """What keys did to things of the project, newest first: every change and every download of a file.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
            created_after: at this time or later, with its offset
            created_before: before this time, with its offset
        """
        return self._rows(
            Request(
                "GET",
                "/v1/audit-events",
                params={
                    "project_id": project_id,
                    "action": action,
                    "key_id": key_id,
                    "target_id": target_id,
                    "created_after": created_after,
                    "created_before": created_before,
                },
            ),
            limit,
            200,
        )

    def list_usage(
        self,
        *,
        project_id: str | None = None,
        limit: int | None = None,
        from_day: str | None = None,
        to_day: str | None = None,
    ) -> AsyncIterator[models.UsageBody]:
        """GPU time by day (UTC) and type of GPU, oldest first; what runs is charged until now.

        Args:
            project_id: another project than the caller's: needs the scope `admin`
            from_day: UTC; 30 days ago
            to_day: UTC, included; today
        """
        return self._rows(
            Request("GET", "/v1/usage", params={"project_id": project_id, "from_day": from_day, "to_day": to_day}),
            limit,
            200,
        )

    async def health(self) -> models.Health:
        """Whether the process answers; it asks nobody else."""
        answer: models.Health = await self._json(Request("GET", "/healthz"))
        return answer

    async def readiness(self) -> models.Readiness:
        """Whether requests can be served, and what is down. Only the database is needed: jobs wait for the rest."""
        answer: models.Readiness = await self._json(Request("GET", "/readyz"))
        return answer
