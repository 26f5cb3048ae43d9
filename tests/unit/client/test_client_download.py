"""Downloads: a name is given only to bytes with the announced digest, inside the folder."""

import hashlib
from pathlib import Path

import httpx
import pytest

from egrpo_client.client import Client
from egrpo_client.download import download_job, fetch
from egrpo_client.errors import ClientError, DigestError

BYTES = b"weights" * 1000
SHA = hashlib.sha256(BYTES).hexdigest()


def serving(files: dict[str, object]) -> Client:
    def answer(request: httpx.Request) -> httpx.Response:
        found = files.get(request.url.path)
        if found is None:
            return httpx.Response(404, json={"code": "not_found", "detail": f"no {request.url.path}"})
        return httpx.Response(200, content=found) if isinstance(found, bytes) else httpx.Response(200, json=found)

    return Client("http://service", "k", transport=httpx.MockTransport(answer))


def entry(name: str, url: str = "") -> dict[str, object]:
    return {"path": name, "name": name, "sha256": SHA, "size_bytes": len(BYTES), "url": url}


def listed(*checkpoints: object) -> dict[str, object]:
    return {"data": list(checkpoints), "has_more": False, "next_cursor": None}


def test_whole_file_gets_its_name(tmp_path: Path) -> None:
    target = tmp_path / "a" / "w.safetensors"
    assert fetch(serving({"/f": BYTES}), "/f", target, SHA, len(BYTES)).path == target
    assert target.read_bytes() == BYTES
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("served", [BYTES[:-1], BYTES[:-1] + b"X", b""])
def test_damaged_file_leaves_nothing(tmp_path: Path, served: bytes) -> None:
    with pytest.raises(DigestError, match="arrived damaged"):
        fetch(serving({"/f": served}), "/f", tmp_path / "w", SHA, len(BYTES))
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_and_whole_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(BYTES)
    assert fetch(serving({}), "/f", tmp_path / "w", SHA, len(BYTES)).sha256 == SHA


def test_older_file_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"old")
    fetch(serving({"/f": BYTES}), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES


def test_job_download_takes_the_newest_adapter_and_the_artifacts(tmp_path: Path) -> None:
    base = "/v1/jobs/job_1"
    adapter = entry("pytorch_lora_weights.safetensors", f"{base}/checkpoints/ckpt_3/files/weights")
    report = entry("report.json", f"{base}/artifacts/report.json")
    checkpoints = listed(
        {"id": "ckpt_1", "kind": "state", "step": 9, "files": [entry("optimizer")]},
        {"id": "ckpt_2", "kind": "adapter", "step": 5, "files": [entry("old")]},
        {"id": "ckpt_3", "kind": "adapter", "step": 9, "files": [adapter]},
    )
    client = serving(
        {
            base: {"id": "job_1", "status": "succeeded", "artifacts": [report, entry("other.bin")]},
            f"{base}/checkpoints": checkpoints,
            f"{base}/checkpoints/ckpt_3/files/weights": BYTES,
            f"{base}/artifacts/report.json": BYTES,
        }
    )
    files = download_job(client, "job_1", tmp_path)
    assert [file.path.relative_to(tmp_path).as_posix() for file in files] == [
        "adapter/pytorch_lora_weights.safetensors",
        "report.json",
    ]


def test_job_without_adapter_says_what_to_wait_for(tmp_path: Path) -> None:
    base = "/v1/jobs/job_1"
    client = serving({base: {"id": "job_1", "status": "running"}, f"{base}/checkpoints": listed()})
    with pytest.raises(ClientError, match=r"no adapter: it is running\. Wait for it with: egrpo watch job_1"):
        download_job(client, "job_1", tmp_path)


def test_files_of_an_adapter_keep_their_folders(tmp_path: Path) -> None:
    """As they link to each other: the card to its pictures, peft's weights to their config."""
    base = "/v1/jobs/job_1"
    names = ["README.md", "images/000.png", "peft/adapter_config.json", "peft/adapter_model.safetensors"]
    urls = {name: f"{base}/checkpoints/ckpt_1/files/{name}" for name in names}
    files = [entry(name, url) for name, url in urls.items()]
    checkpoints = listed({"id": "ckpt_1", "kind": "adapter", "step": 9, "files": files})
    answers: dict[str, object] = {base: {"id": "job_1", "status": "succeeded"}, f"{base}/checkpoints": checkpoints}
    download_job(serving(answers | dict.fromkeys(urls.values(), BYTES)), "job_1", tmp_path)
    assert all((tmp_path / "adapter" / name).read_bytes() == BYTES for name in names)


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", ""])
def test_path_outside_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    adapter = {"id": "ckpt_1", "kind": "adapter", "step": 1, "files": [entry(path)]}
    client = serving({"/v1/jobs/job_1/checkpoints": listed(adapter)})
    with pytest.raises(ClientError, match="outside the output folder"):
        download_job(client, "job_1", tmp_path)
