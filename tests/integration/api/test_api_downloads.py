"""Files out of the store, whole, in parts and by link."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api_bench import PNG, Bench, assert_problem
from fastapi.testclient import TestClient

from api.main import create_app
from jobs.settings import Settings

ADAPTER = bytes(range(256)) * 1172


@dataclass
class Files:
    bench: Bench
    job: str
    ids: dict[str, str]

    @property
    def adapter(self) -> str:
        return f"/v1/jobs/{self.job}/checkpoints/{self.ids['checkpoint']}/files/pytorch_lora_weights.safetensors"

    def get(self, **headers: str) -> Any:
        return self.bench.get(self.adapter, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def files(bench: Bench) -> Files:
    bench.submit()
    claim = bench.claim()
    return Files(bench, claim.job_id, bench.finish_files(claim))


def test_lists_lead_to_the_files(files: Files) -> None:
    (checkpoint,) = files.bench.get(f"/v1/jobs/{files.job}/checkpoints", kind="adapter").json()["data"]
    (file,) = checkpoint["files"]
    assert (checkpoint["kind"], checkpoint["format"], checkpoint["step"]) == ("adapter", "diffusers", 120)
    assert hashlib.sha256(files.bench.get(file["url"]).content).hexdigest() == file["sha256"]
    assert file["size_bytes"] == checkpoint["size_bytes"] == len(ADAPTER)
    assert files.bench.get(f"/v1/jobs/{files.job}/checkpoints", kind="state").json()["data"] == []
    (artifact,) = files.bench.get(f"/v1/jobs/{files.job}/artifacts").json()["data"]
    assert files.bench.get(artifact["url"]).json() == {"seconds": 1}
    assert files.bench.get(f"/v1/jobs/{files.job}").json()["artifacts"] == [artifact]
    (sample,) = files.bench.get(f"/v1/jobs/{files.job}/samples", step=0).json()["data"]
    image = files.bench.get(sample["image_url"])
    assert (image.content, image.headers["content-type"]) == (PNG, "image/png")
    assert image.headers["x-content-type-options"] == "nosniff"


def test_the_whole_file_with_its_digest(files: Files) -> None:
    response = files.get()
    digest = hashlib.sha256(ADAPTER)
    assert response.status_code == 200
    assert response.content == ADAPTER
    assert response.headers["etag"] == f'"sha256:{digest.hexdigest()}"'
    assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert response.headers["content-length"] == str(len(ADAPTER))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-type"] == "application/octet-stream"
    assert "attachment" in response.headers["content-disposition"]


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-1999", 1000, 1999),
        ("bytes=299999-", 299_999, 300_031),
        ("bytes=-10", 300_022, 300_031),
        ("bytes=300000-9999999", 300_000, 300_031),
        ("bytes=-9999999", 0, 300_031),
    ],
)
def test_a_range(files: Files, header: str, first: int, last: int) -> None:
    response = files.get(Range=header)
    assert response.status_code == 206
    assert response.content == ADAPTER[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(ADAPTER)}"
    assert response.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=x", "bytes=9-3", "bytes=-"])
def test_ranges_that_are_answered_with_the_whole(files: Files, header: str) -> None:
    response = files.get(Range=header)
    assert (response.status_code, response.content == ADAPTER) == (200, True)


@pytest.mark.parametrize("header", ["bytes=300032-", "bytes=-0", "bytes=999999-9999999"])
def test_ranges_behind_the_end(files: Files, header: str) -> None:
    response = files.get(Range=header)
    assert_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(ADAPTER)}"


def test_a_cut_download_goes_on_only_if_the_file_is_the_same(files: Files) -> None:
    etag = files.get().headers["etag"]
    assert files.get(Range="bytes=10-", If_Range=etag).status_code == 206
    assert files.get(Range="bytes=10-", If_Range='"sha256:other"').status_code == 200
    not_modified = files.get(If_None_Match=f'"x", W/{etag}')
    assert (not_modified.status_code, not_modified.content) == (304, b"")


def test_only_files_of_the_manifest_can_be_had(files: Files) -> None:
    base = files.adapter.rsplit("/", 1)[0]
    for path in ("manifest.json", "..%2f..%2fartifacts%2freport.json", "../report.json", "%2fetc%2fpasswd", ""):
        assert_problem(files.bench.get(f"{base}/{path}"), 404, "not_found")


def test_redirect_signs_a_link_that_works_without_a_key(files: Files) -> None:
    response = files.bench.get(files.adapter, redirect="true")
    assert response.status_code == 302
    assert response.headers["cache-control"] == "no-store"
    fetched = httpx.get(response.headers["location"])
    assert fetched.content == ADAPTER
    assert fetched.headers["content-disposition"] == 'attachment; filename="pytorch_lora_weights.safetensors"'
    assert httpx.get(response.headers["location"].split("?")[0]).status_code == 403


def test_links_carry_the_public_host(settings: Settings) -> None:
    public = settings.model_copy(update={"s3_public_endpoint": "https://files.example.com"})
    with TestClient(create_app(public)) as client:
        bench = Bench(client, public)
        bench.submit()
        claim = bench.claim()
        files = Files(bench, claim.job_id, bench.finish_files(claim))
        location = bench.get(files.adapter, redirect="true").headers["location"]
    assert location.startswith("https://files.example.com/")
    assert public.s3_secret_key.get_secret_value() not in location


def test_without_a_public_endpoint_the_file_itself_comes(settings: Settings) -> None:
    private = settings.model_copy(update={"s3_public_endpoint": None})
    with TestClient(create_app(private)) as client:
        bench = Bench(client, private)
        bench.submit()
        claim = bench.claim()
        files = Files(bench, claim.job_id, bench.finish_files(claim))
        assert bench.get(files.adapter, redirect="true").content == ADAPTER
