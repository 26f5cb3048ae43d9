"""Fetching what a job made: the adapter, the report and the pictures, each checked against its sha256."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from egrpo_client.client import JSON, Client
from egrpo_client.errors import ClientError, DigestError

ARTIFACTS = ("report.json", "contact_sheet.png", "reward_curve.png")


@dataclasses.dataclass(frozen=True)
class Downloaded:
    """One file that now lies on this machine."""

    path: Path
    size_bytes: int
    sha256: str


def download_job(
    client: Client, job_id: str, output: Path, told: Callable[[Downloaded], None] = lambda file: None
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
    for url_path, target, entry in [*_adapter_files(client, job_id), *_artifact_files(client, job_id)]:
        files.append(fetch(client, url_path, output / target, entry["sha256"], entry["size_bytes"]))
        told(files[-1])
    return files


def fetch(client: Client, url_path: str, target: Path, sha256: str, size_bytes: int) -> Downloaded:
    """Downloads one file, checks it, and only then gives it its name.

    Raises:
        DigestError: size or sha256 differ from what was announced.
    """
    downloaded = Downloaded(target, size_bytes, sha256)
    if target.is_file() and target.stat().st_size == size_bytes and _digest(target) == sha256:
        return downloaded
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".part")
    digest, size = hashlib.sha256(), 0
    with draft.open("wb") as file:
        for chunk in client.open_file(url_path):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    if (digest.hexdigest(), size) != (sha256, size_bytes):
        draft.unlink()
        raise DigestError(
            f"{target.name} arrived damaged: {size} bytes with sha256 {digest.hexdigest()[:12]}…, "
            f"announced were {size_bytes} bytes with {sha256[:12]}…. Nothing was kept; try again."
        )
    draft.replace(target)
    return downloaded


def _adapter_files(client: Client, job_id: str) -> list[tuple[str, Path, JSON]]:
    adapters = [checkpoint for checkpoint in client.checkpoints(job_id) if checkpoint["kind"] == "adapter"]
    if not adapters:
        job = client.job(job_id)
        raise ClientError(f"Job {job_id} has no adapter: it is {job['status']}. Wait for it with: egrpo watch {job_id}")
    newest = max(adapters, key=lambda checkpoint: (checkpoint["step"], checkpoint["id"]))
    return [(file["url"], Path("adapter") / _relative(file["path"]), file) for file in newest["files"]]


def _artifact_files(client: Client, job_id: str) -> list[tuple[str, Path, JSON]]:
    artifacts = {artifact["name"]: artifact for artifact in client.job(job_id).get("artifacts", [])}
    wanted = [artifacts[name] for name in ARTIFACTS if name in artifacts]
    return [(each["url"], Path(each["name"]), each) for each in wanted]


def _relative(path: str) -> Path:
    """Returns the path, refusing one that would leave the output folder.

    Raises:
        ClientError: the service named such a path.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ClientError(f"The service named the file {path!r}, which would lie outside the output folder.")
    return Path(*parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
