"""Fetching what a job made: the adapter, the report and the pictures, each checked against its sha256."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from egrpo_client.aio.files import fetch
from egrpo_client.aio.operations import AsyncOperations
from egrpo_client.drafts import Downloaded
from egrpo_client.errors import ClientError

ARTIFACTS = ("report.json", "contact_sheet.png", "reward_curve.png")


async def download_job(
    client: AsyncOperations, job_id: str, output: Path, told: Callable[[Downloaded], None] = lambda file: None
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
    wanted = [*await _adapter_files(client, job_id), *await _artifact_files(client, job_id)]
    for target, entry in wanted:
        files.append(await fetch(client, entry["url"], output / target, entry["sha256"], entry["size_bytes"]))
        told(files[-1])
    return files


async def _adapter_files(client: AsyncOperations, job_id: str) -> list[tuple[Path, Mapping[str, Any]]]:
    adapters = [checkpoint async for checkpoint in client.list_checkpoints(job_id, kind="adapter")]
    if not adapters:
        job = await client.get_job(job_id)
        raise ClientError(f"Job {job_id} has no adapter: it is {job['status']}. Wait for it with: egrpo watch {job_id}")
    newest = max(adapters, key=lambda checkpoint: (checkpoint["step"], checkpoint["id"]))
    return [(Path("adapter") / _relative(file["path"]), file) for file in newest["files"]]


async def _artifact_files(client: AsyncOperations, job_id: str) -> list[tuple[Path, Mapping[str, Any]]]:
    job = await client.get_job(job_id)
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
