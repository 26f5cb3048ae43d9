"""The object store against a real S3 server."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import urllib3
from minio.deleteobjects import DeleteError, DeleteResult
from pydantic import SecretStr

from jobs.errors import ChecksumMismatch, ObjectMissing, StoreUnavailable
from jobs.settings import Settings
from jobs.store import ObjectStore

DATA = bytes(range(256)) * 4096


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return ObjectStore(settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(DATA)
    return path


def test_what_goes_in_comes_out(store: ObjectStore, file: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(DATA).hexdigest()
    stored = store.put_file("a/é b.bin", file, sha256=sha256)
    assert (stored.key, stored.size_bytes, stored.sha256) == ("a/é b.bin", len(DATA), sha256)
    assert store.stat(stored.key) == len(DATA)
    assert b"".join(store.get(stored.key).chunks()) == DATA
    assert store.get(stored.key, offset=1000, length=10).read() == DATA[1000:1010]
    store.download(stored.key, tmp_path / "copy", sha256=sha256)
    assert (tmp_path / "copy").read_bytes() == DATA
    store.delete(stored.key)
    store.delete(stored.key)
    with pytest.raises(ObjectMissing):
        store.get(stored.key)
    with pytest.raises(ObjectMissing):
        store.stat(stored.key)


def test_many_objects_are_removed_at_once_and_no_others(store: ObjectStore) -> None:
    gone = {f"many/{number}" for number in range(1001)} | {
        "odd/é <&>\"' b",
        "odd/\u2028",
        "odd/\x01",
        "odd/c\rd",
        "odd/t\t",
    }
    for key in (*gone, "odd/c\nd", "many/x"):
        store.put_bytes(key, b"")
    assert store.delete_all([*gone, "many/never-there"]) == {}
    assert {found.key for found in store.objects("")} == {"odd/c\nd", "many/x"}
    assert store.delete_all([]) == {}


def test_a_request_that_is_refused_as_a_whole_removes_nothing_and_says_so(settings: Settings) -> None:
    store = ObjectStore(settings.model_copy(update={"s3_secret_key": SecretStr("wrong")}))
    with pytest.raises(StoreUnavailable, match="SignatureDoesNotMatch"):
        store.delete_all(["a", "b"])


def test_an_answer_of_200_that_is_an_error_says_so_too(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Amazon's store answers when it fails after the answer has begun."""
    whole = DeleteResult([], [DeleteError("InternalError", None, None, None)])
    monkeypatch.setattr(store._client, "_delete_objects", lambda *_, **__: whole)
    with pytest.raises(StoreUnavailable, match="InternalError"):
        store.delete_all(["a", "b"])


def test_a_host_whose_clock_is_an_hour_off_stores_signs_and_asks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class AnHourLate(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("jobs.store_clock.datetime", AnHourLate)
    store = ObjectStore(settings.model_copy(update={"s3_public_endpoint": settings.s3_endpoint}))
    store.ping()  # A HEAD, whose refusal says nothing of a reason.
    assert "event=clock_differs from=store seconds=" in caplog.text
    store.put_bytes("key", b"late")
    url = store.presigned_url("key", expires_s=60, filename="name", content_type="text/plain")
    assert urllib3.request("GET", url).data == b"late"
    assert caplog.text.count("clock_differs") == 1


def test_a_refusal_for_another_reason_is_not_the_clocks(settings: Settings) -> None:
    store = ObjectStore(settings.model_copy(update={"s3_secret_key": SecretStr("wrong")}))
    with pytest.raises(StoreUnavailable, match="SignatureDoesNotMatch"):
        store.put_bytes("key", b"?")


def test_an_empty_file(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert store.put_file("empty", tmp_path / "empty").size_bytes == 0
    assert b"".join(store.get("empty").chunks()) == b""


def test_a_file_that_is_not_what_was_announced_is_not_uploaded(store: ObjectStore, file: Path) -> None:
    with pytest.raises(ChecksumMismatch):
        store.put_file("key", file, sha256="0" * 64)
    with pytest.raises(ObjectMissing):
        store.stat("key")


def test_bytes_damaged_in_the_store_are_noticed(
    store: ObjectStore, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store._put

    def damaging(key: str, data: object, size_bytes: int, content_type: str) -> None:
        put(key, io.BytesIO(DATA[1:]), size_bytes - 1, content_type)

    monkeypatch.setattr(store, "_put", damaging)
    with pytest.raises(ChecksumMismatch):
        store.put_file("key", file)
    with pytest.raises(ChecksumMismatch):
        store.download("key", tmp_path / "copy", sha256=hashlib.sha256(DATA).hexdigest())
    assert not (tmp_path / "copy").exists()


def test_the_bucket_is_made_once(settings: Settings) -> None:
    store = ObjectStore(settings.model_copy(update={"s3_bucket": f"new-{settings.s3_bucket[-12:]}"}))
    with pytest.raises(StoreUnavailable, match="does not exist"):
        store.ping()
    store.ensure_bucket()
    store.ensure_bucket()
    store.ping()


def test_wrong_keys_are_told_as_such(settings: Settings) -> None:
    from pydantic import SecretStr

    store = ObjectStore(settings.model_copy(update={"s3_secret_key": SecretStr("wrong")}))
    with pytest.raises(StoreUnavailable):
        store.get("key")
