"""The object store against a real S3 server."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

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
