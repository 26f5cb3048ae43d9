"""Downloads: a name is given only to bytes with the announced digest, inside the folder; what arrived is not lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_service import Answering, Half, script

from egrpo_client.errors import ClientError, DigestError, UnexpectedAnswerError, UnreachableError

BYTES = b"weights" * 1000
SHA = hashlib.sha256(BYTES).hexdigest()


def serving(files: dict[str, object]) -> Answering:
    def answer(request: httpx.Request) -> httpx.Response:
        found = files.get(request.url.path)
        if found is None:
            return httpx.Response(404, json={"code": "not_found", "detail": f"no {request.url.path}"})
        return httpx.Response(200, content=found) if isinstance(found, bytes) else httpx.Response(200, json=found)

    return answer


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends in a broken connection."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        yield self._sent
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        yield self._sent
        raise httpx.ReadError("reset")


class Ranges:
    """A service that knows ranges, and breaks the connection after so many bytes of each answer."""

    def __init__(self, content: bytes, *, breaks_after: int | None = None) -> None:
        self.content = content
        self.breaks_after = breaks_after
        self.ranges: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        etag = f'"sha256:{hashlib.sha256(self.content).hexdigest()}"'
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        is_part = asked is not None and request.headers.get("If-Range") == etag
        body = self.content[first:] if is_part else self.content
        span = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        headers = {"ETag": etag, **({"Content-Range": span} if is_part else {})}
        status = 206 if is_part else 200
        if self.breaks_after is None or len(body) <= self.breaks_after:
            return httpx.Response(status, content=body, headers=headers)
        return httpx.Response(status, stream=Broken(body[: self.breaks_after]), headers=headers)


def entry(name: str, url: str = "") -> dict[str, object]:
    return {"path": name, "name": name, "sha256": SHA, "size_bytes": len(BYTES), "url": url}


def listed(*checkpoints: object) -> dict[str, object]:
    return {"data": list(checkpoints), "has_more": False, "next_cursor": None}


def test_whole_file_gets_its_name(half: Half, tmp_path: Path) -> None:
    target = tmp_path / "a" / "w.safetensors"
    assert half.fetch(half.client(serving({"/f": BYTES})), "/f", target, SHA, len(BYTES)).path == target
    assert target.read_bytes() == BYTES
    assert list(target.parent.iterdir()) == [target]


def test_empty_file_is_a_file(half: Half, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    half.fetch(half.client(serving({"/f": b""})), "/f", tmp_path / "w", sha256, 0)
    assert (tmp_path / "w").read_bytes() == b""


@pytest.mark.parametrize("served", [BYTES[:-1], BYTES[:-1] + b"X", BYTES + b"X", b""])
def test_damaged_file_leaves_nothing(half: Half, tmp_path: Path, served: bytes) -> None:
    with pytest.raises(DigestError, match="arrived damaged"):
        half.fetch(half.client(serving({"/f": served})), "/f", tmp_path / "w", SHA, len(BYTES))
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_and_whole_is_not_fetched_again(half: Half, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(BYTES)
    assert half.fetch(half.client(serving({})), "/f", tmp_path / "w", SHA, len(BYTES)).sha256 == SHA


def test_older_file_of_the_same_name_is_replaced(half: Half, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"old")
    half.fetch(half.client(serving({"/f": BYTES})), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES


def test_a_connection_that_breaks_is_gone_on_with(half: Half, tmp_path: Path) -> None:
    service = Ranges(BYTES, breaks_after=3000)
    half.fetch(half.client(service), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES
    assert service.ranges == [None, "bytes=3000-", "bytes=6000-"]


def test_a_part_of_an_earlier_run_is_gone_on_with(half: Half, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(BYTES[:5000])
    service = Ranges(BYTES)
    half.fetch(half.client(service), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES
    assert service.ranges == ["bytes=5000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("part", [b"other file " * 400, BYTES + b"more"])
def test_a_part_of_another_file_is_not(half: Half, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "w.part").write_bytes(part)
    half.fetch(half.client(Ranges(BYTES)), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES


def test_a_service_without_ranges_sends_the_whole(half: Half, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(BYTES[:5000])
    half.fetch(half.client(serving({"/f": BYTES})), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES


def test_the_service_tells_what_a_file_has_to_be(half: Half, tmp_path: Path) -> None:
    service = Ranges(BYTES)
    (tmp_path / "w.part").write_bytes(BYTES[:5000])
    answer, _ = script(_away, service, service)
    saved = half.client(answer).save_artifact("job_1", "report.json", tmp_path / "w")
    assert (saved.sha256, saved.size_bytes) == (SHA, len(BYTES))
    assert (tmp_path / "w").read_bytes() == BYTES
    assert service.ranges == [None, "bytes=5000-"]
    with pytest.raises(UnexpectedAnswerError, match="without its sha256"):
        half.client(serving({"/v1/jobs/job_1/artifacts/a": BYTES})).save_artifact("job_1", "a", tmp_path / "a")


def test_what_has_arrived_is_kept_when_it_gives_up(half: Half, tmp_path: Path) -> None:
    answer, _ = script(Ranges(BYTES, breaks_after=3000), *[_away] * 9)
    with pytest.raises(UnreachableError):
        half.fetch(half.client(answer), "/f", tmp_path / "w", SHA, len(BYTES))
    assert (tmp_path / "w.part").read_bytes() == BYTES[:3000]


def _away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def test_job_download_takes_the_newest_adapter_and_the_artifacts(half: Half, tmp_path: Path) -> None:
    base = "/v1/jobs/job_1"
    adapter = entry("pytorch_lora_weights.safetensors", f"{base}/checkpoints/ckpt_3/files/weights")
    report = entry("report.json", f"{base}/artifacts/report.json")
    checkpoints = listed(
        {"id": "ckpt_2", "kind": "adapter", "step": 5, "files": [entry("old")]},
        {"id": "ckpt_3", "kind": "adapter", "step": 9, "files": [adapter]},
    )
    client = half.client(
        serving(
            {
                base: {"id": "job_1", "status": "succeeded", "artifacts": [report, entry("other.bin")]},
                f"{base}/checkpoints": checkpoints,
                f"{base}/checkpoints/ckpt_3/files/weights": BYTES,
                f"{base}/artifacts/report.json": BYTES,
            }
        )
    )
    files = client.job("job_1").download(tmp_path)
    assert [file.path.relative_to(tmp_path).as_posix() for file in files] == [
        "adapter/pytorch_lora_weights.safetensors",
        "report.json",
    ]


def test_job_without_adapter_says_what_to_wait_for(half: Half, tmp_path: Path) -> None:
    base = "/v1/jobs/job_1"
    client = half.client(serving({base: {"id": "job_1", "status": "running"}, f"{base}/checkpoints": listed()}))
    with pytest.raises(ClientError, match=r"no adapter: it is running\. Wait for it with: egrpo watch job_1"):
        client.job("job_1").download(tmp_path)


def test_files_of_an_adapter_keep_their_folders(half: Half, tmp_path: Path) -> None:
    """As they link to each other: the card to its pictures, peft's weights to their config."""
    base = "/v1/jobs/job_1"
    names = ["README.md", "images/000.png", "peft/adapter_config.json", "peft/adapter_model.safetensors"]
    urls = {name: f"{base}/checkpoints/ckpt_1/files/{name}" for name in names}
    files = [entry(name, url) for name, url in urls.items()]
    checkpoints = listed({"id": "ckpt_1", "kind": "adapter", "step": 9, "files": files})
    answers: dict[str, object] = {base: {"id": "job_1", "status": "succeeded"}, f"{base}/checkpoints": checkpoints}
    half.client(serving(answers | dict.fromkeys(urls.values(), BYTES))).job("job_1").download(tmp_path)
    assert all((tmp_path / "adapter" / name).read_bytes() == BYTES for name in names)


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", ""])
def test_path_outside_the_folder_is_refused(half: Half, tmp_path: Path, path: str) -> None:
    adapter = {"id": "ckpt_1", "kind": "adapter", "step": 1, "files": [entry(path)]}
    client = half.client(serving({"/v1/jobs/job_1/checkpoints": listed(adapter)}))
    with pytest.raises(ClientError, match="outside the output folder"):
        client.job("job_1").download(tmp_path)
