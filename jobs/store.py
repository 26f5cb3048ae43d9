"""The object store: plain S3 through the `minio` client. Files in with their sha256 verified, byte ranges out.

Two endpoints: the internal one for reading and writing, the public one for signing links, because the host is part of
a signature. Every wait is bounded, and a store that is down is `StoreUnavailable`. No ACLs, tags or notifications.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from jobs.errors import ChecksumMismatch, ObjectMissing, SettingsError, StoreUnavailable
from jobs.settings import Settings
from jobs.store_clock import StoreTimeMinio

CHUNK_BYTES = 256 * 1024
_CONNECT_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 30.0
_RETRIES = urllib3.Retry(total=2, connect=1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504))
_MISSING = frozenset({"NoSuchKey", "NoSuchObject", "NotFound", "NoSuchUpload"})
_PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StoredFile:
    """What was put: its key, size and sha256 (hex)."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ListedObject:
    """What a listing says of an object."""

    key: str
    size_bytes: int


@dataclass(frozen=True)
class Upload:
    """An upload in parts that is under way, or was cut off."""

    key: str
    id: str


class ObjectReader:
    """An open object: read in chunks, then close. The connection goes back to the pool only when all was read."""

    def __init__(self, response: urllib3.BaseHTTPResponse, key: str) -> None:
        self._response = response
        self._key = key

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Returns the next bytes, empty at the end.

        Raises:
            StoreUnavailable: the store went away in between.
        """
        with _translated(self._key):
            return self._response.read(size)

    def chunks(self) -> Iterator[bytes]:
        """Yields all bytes and closes."""
        try:
            while chunk := self.read():
                yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Ends the transfer, finished or not."""
        self._response.close()
        self._response.release_conn()


class ObjectStore:
    """One bucket. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.bucket = settings.s3_bucket
        self._client = _client(settings, settings.s3_endpoint)
        public = settings.s3_public_endpoint
        self._signer = _client(settings, public) if public else None

    @property
    def signs(self) -> bool:
        """Whether links can be signed: only for a public endpoint, an internal host would be of no use to anyone."""
        return self._signer is not None

    def ensure_bucket(self) -> None:
        """Makes the bucket if it is not there; two processes may do so at once."""
        with _translated(self.bucket):
            if self._client.bucket_exists(self.bucket):
                return
            try:
                self._client.make_bucket(self.bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def ping(self) -> None:
        """Passes if the bucket can be reached.

        Raises:
            StoreUnavailable: the store does not answer, or the bucket is not there.
        """
        with _translated(self.bucket):
            if not self._client.bucket_exists(self.bucket):
                raise StoreUnavailable(f"the bucket {self.bucket!r} does not exist")

    def put_file(
        self, key: str, path: Path, *, sha256: str | None = None, content_type: str = "application/octet-stream"
    ) -> StoredFile:
        """Uploads a file and reads it back, so that what the store holds is what the sha256 says.

        Args:
            key: Where to.
            path: The file.
            sha256: What the file must be (hex); the file's own, if not given.
            content_type: Its media type.

        Returns:
            Key, size and sha256 of what is stored.

        Raises:
            ChecksumMismatch: the file is not what `sha256` says (nothing is uploaded), or the stored bytes differ.
            StoreUnavailable: the store does not answer.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
            if sha256 is not None and digest != sha256:
                raise ChecksumMismatch(f"{path}: sha256 is {digest}, expected {sha256}")
            file.seek(0)
            self._put(key, file, size_bytes, content_type)
        self._verify(key, digest)
        return StoredFile(key, size_bytes, digest)

    def put_bytes(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> StoredFile:
        """Uploads bytes; as `put_file`, but without reading them back."""
        self._put(key, io.BytesIO(data), len(data), content_type)
        return StoredFile(key, len(data), hashlib.sha256(data).hexdigest())

    def _put(self, key: str, data: BinaryIO, size_bytes: int, content_type: str) -> None:
        with _translated(key):
            self._client.put_object(
                self.bucket,
                key,
                data,
                size_bytes,
                content_type=content_type,
                part_size=_PART_BYTES,
                num_parallel_uploads=1,
            )

    def _verify(self, key: str, sha256: str) -> None:
        stored = hashlib.sha256()
        for chunk in self.get(key).chunks():
            stored.update(chunk)
        if stored.hexdigest() != sha256:
            raise ChecksumMismatch(f"{key}: the store holds sha256 {stored.hexdigest()}, uploaded was {sha256}")

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> ObjectReader:
        """Opens an object, or `length` bytes of it from `offset`. Errors are raised here, before the first byte.

        Raises:
            ObjectMissing: no such key.
            StoreUnavailable: the store does not answer.
        """
        with _translated(key):
            response = self._client.get_object(self.bucket, key, offset=offset, length=length or 0)
        return ObjectReader(response, key)

    def download(self, key: str, path: Path, *, sha256: str) -> None:
        """Writes an object to a file, which appears only when it is whole and verified.

        Raises:
            ChecksumMismatch: the stored bytes are not what `sha256` says; no file is left.
        """
        partial = path.with_name(path.name + ".partial")
        digest = hashlib.sha256()
        with partial.open("wb") as file:
            for chunk in self.get(key).chunks():
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            partial.unlink()
            raise ChecksumMismatch(f"{key}: the store holds sha256 {digest.hexdigest()}, expected {sha256}")
        partial.rename(path)

    def stat(self, key: str) -> int:
        """Returns the size of an object in bytes.

        Raises:
            ObjectMissing: no such key.
            StoreUnavailable: the store does not answer.
        """
        with _translated(key):
            return int(self._client.stat_object(self.bucket, key).size or 0)

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yields what is under a prefix, in the order of the keys, a page of the store's at a time.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        with _translated(prefix):
            for found in self._client.list_objects(self.bucket, prefix, recursive=True):
                yield ListedObject(str(found.object_name), int(found.size or 0))

    def folders(self, prefix: str) -> list[str]:
        """Returns the names between a prefix and the next slash.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        with _translated(prefix):
            found = self._client.list_objects(self.bucket, prefix)
            return [str(each.object_name).removeprefix(prefix).rstrip("/") for each in found if each.is_dir]

    def unfinished_uploads(self, prefix: str) -> list[Upload]:
        """Returns uploads in parts that were begun and neither completed nor given up, the first thousand of them.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        with _translated(prefix):  # The client has these calls without a public name.
            found = self._client._list_multipart_uploads(self.bucket, prefix=prefix)
            return [Upload(str(each.object_name), str(each.upload_id)) for each in found.uploads]

    def abort(self, upload: Upload) -> None:
        """Gives an upload in parts up, and with it the parts; one that is not there is no error.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        with suppress(ObjectMissing), _translated(upload.key):
            self._client._abort_multipart_upload(self.bucket, upload.key, upload.id)

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        with _translated(key):
            self._client.remove_object(self.bucket, key)

    def delete_all(self, keys: Collection[str]) -> dict[str, str]:
        """Removes objects, a thousand with a request; one that is not there is no error.

        Returns:
            Why the store kept those that it did, by key.

        Raises:
            StoreUnavailable: the store does not answer, or refused a whole request; others may have been served.
        """
        # XML carries no control characters, and a \r arrives as \n: it would name another object.
        plain = [key for key in keys if key.isprintable()]
        for key in set(keys).difference(plain):
            self.delete(key)
        kept: dict[str, str] = {}
        with _translated(f"any of {len(plain)}"):
            for error in self._client.remove_objects(self.bucket, map(DeleteObject, plain)):
                if error.name is None:
                    raise StoreUnavailable(f"the object store refused: {error.code}")
                if error.code not in _MISSING:
                    kept[error.name] = str(error.code)
        return kept

    def presigned_url(self, key: str, *, expires_s: int, filename: str, content_type: str) -> str:
        """Returns a link on the public endpoint that works for `expires_s` seconds. No network call.

        Raises:
            SettingsError: there is no public endpoint (see `signs`).
        """
        if self._signer is None:
            raise SettingsError("EGRPO_S3_PUBLIC_ENDPOINT is not set")
        url: str = self._signer.presigned_get_object(
            self.bucket,
            key,
            expires=timedelta(seconds=expires_s),
            request_date=self._client.now(),
            response_headers={
                "response-content-disposition": f'attachment; filename="{filename}"',
                "response-content-type": content_type,
            },
        )
        return url


def _client(settings: Settings, endpoint: str) -> StoreTimeMinio:
    url = urlsplit(endpoint)
    return StoreTimeMinio(
        url.netloc,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=url.scheme == "https",
        region=settings.s3_region,  # Saves the client a request for it, and lets links be signed offline.
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S), retries=_RETRIES, maxsize=20
        ),
    )


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turns the client's errors into ours; what remains (a wrong key, a refused signature) is a fault of the set-up."""
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise ObjectMissing(f"the store has no object {key}") from error
        raise StoreUnavailable(f"the object store refused: {error.code}") from error
    except (ServerError, InvalidResponseError, MinioException) as error:
        raise StoreUnavailable("the object store does not answer as S3 does; try again") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable("the object store cannot be reached; try again") from error
