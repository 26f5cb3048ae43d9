# Made from aio/download.py: python -m contract write
"""Fetching what a job made: the adapter, the report and the pictures, each checked against its sha256."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from egrpo_client.drafts import Downloaded
from egrpo_client.errors import ClientError
from egrpo_client.sync.files import fetch
from egrpo_client.sync.operations import Operations

ARTIFACTS = ("report.json", "contact_sheet.png", "reward_curve.png")


def download_job(
    client: Operations, job_id: str, output: Path, told: Callable[[Downloaded], None] = lambda file: None
) -> list[Downloaded]:
    """Fetches the adapter and the artifacts of a job; a file that is already there and whole is not fetched again.

    Args:
        client: the service.
        job_id: a job that has exported its adapter.
        output: folder that receives `adapter/…`, `report.json`, `contact_sheet.png` and `reward_curve.png`.
        told: called after each file.

    Returns:
        The files, in the order of their download.

    Raises:
        ClientError: the job has no adapter yet.
        DigestError: a file arrived damaged.
    """
    files = []
    wanted = [*_adapter_files(client, job_id), *_artifact_files(client, job_id)]
    for target, entry in wanted:
        files.append(fetch(client, entry["url"], output / target, entry["sha256"], entry["size_bytes"]))
        told(files[-1])
    return files


def _adapter_files(client: Operations, job_id: str) -> list[tuple[Path, Mapping[str, Any]]]:
    adapters = list(client.list_checkpoints(job_id, kind="adapter"))
    if not adapters:
        job = client.get_job(job_id)
        raise ClientError(f"Job {job_id} has no adapter: it is {job['status']}. Wait for it with: egrpo watch {job_id}")
    newest = max(adapters, key=lambda checkpoint: (checkpoint["step"], checkpoint["id"]))
    return [(Path("adapter") / _relative(file["path"]), file) for file in newest["files"]]


def _artifact_files(client: Operations, job_id: str) -> list[tuple[Path, Mapping[str, Any]]]:
    job = client.get_job(job_id)
    artifacts = {artifact["name"]: artifact for artifact in job.get("artifacts", [])}
    return [(Path(name), artifacts[name]) for name in ARTIFACTS if name in artifacts]


def _relative(path: str) -> Path:
    """Returns the path, refusing one that would leave the output folder.

    Raises:
        ClientError: the service named such a path.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ClientError(f"The service named the file {path!r}, which would lie outside the output folder.")
    return Path(*parts)
