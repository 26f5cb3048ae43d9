# Made from aio/files.py: python -m contract write
"""Files of the service on this machine: gone on with where a connection broke, checked before they get their names."""

import re
from collections.abc import Mapping
from pathlib import Path

from egrpo_client.drafts import Downloaded, Draft, is_there
from egrpo_client.errors import ApiError, UnexpectedAnswerError, UnreachableError
from egrpo_client.exchange import Request
from egrpo_client.sync import runtime
from egrpo_client.sync.transport import Transport

# Of connections that bring no new byte; as long as something comes, it goes on.
ATTEMPTS = 5
BACKOFF_S = 0.5
_SHA256 = re.compile(r'"sha256:([0-9a-f]{64})"')


def save(client: Transport, url_path: str, target: Path) -> Downloaded:
    """Downloads one file whose size and sha256 the service tells when it is asked for it.

    Raises:
        ApiError: the service refused.
        UnexpectedAnswerError: it does not tell the sha256.
        UnreachableError: the connection breaks again and again; what has arrived is kept.
        DigestError: size or sha256 differ from what was announced.
    """
    headers = _headers(client, Request("GET", url_path))
    tag, length = _SHA256.fullmatch(headers.get("ETag", "")), headers.get("Content-Length")
    if tag is None or length is None:
        raise UnexpectedAnswerError(f"{url_path} comes without its sha256 or its size.")
    return fetch(client, url_path, target, tag[1], int(length))


def fetch(client: Transport, url_path: str, target: Path, sha256: str, size_bytes: int) -> Downloaded:
    """Downloads one file, checks it, and only then gives it its name.

    What has arrived before, in this call or in one that was cut off, lies in a `.part` file beside the target and is
    not fetched again.

    Raises:
        ApiError: the service refused.
        UnreachableError: the connection breaks again and again; what has arrived is kept.
        DigestError: size or sha256 differ from what was announced.
    """
    wanted = Downloaded(target, size_bytes, sha256)
    if runtime.on_disk(lambda: is_there(wanted)):
        return wanted
    draft = Draft(wanted)
    _complete(client, url_path, draft)
    if draft.is_inherited and not runtime.on_disk(draft.is_right):
        draft.start_over()
        _complete(client, url_path, draft)
    if not runtime.on_disk(draft.is_right):
        draft.discard()
    return runtime.on_disk(draft.keep)


def _headers(client: Transport, request: Request) -> Mapping[str, str]:
    """Returns the headers of a file's answer, which is closed before its body is read."""
    attempt = 1
    while True:
        try:
            with client.opened(request) as response:
                return response.headers
        except (ApiError, UnreachableError) as error:
            pause_s = client.retries.pause_s(request, error, attempt)
            if pause_s is None:
                raise
            runtime.sleep(pause_s)
            attempt += 1


def _complete(client: Transport, url_path: str, draft: Draft) -> None:
    failures = 0
    while not draft.is_complete or draft.size_bytes == 0:
        before = draft.size_bytes
        try:
            with client.opened(Request("GET", url_path, headers=draft.headers())) as response:
                draft.begin(response.status_code, response.headers)
                for chunk in response.iter_bytes():
                    draft.add(chunk)
            return
        except (ApiError, UnreachableError) as error:
            if isinstance(error, ApiError) and error.status == 416:
                draft.start_over()
            elif isinstance(error, ApiError) and not error.retryable:
                raise
            failures = 1 if draft.size_bytes > before else failures + 1
            if failures >= ATTEMPTS:
                raise
            runtime.sleep(BACKOFF_S * 2 ** (failures - 1))
