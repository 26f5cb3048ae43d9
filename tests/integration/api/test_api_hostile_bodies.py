"""Bodies that are too large, compressed, cut off or no JSON at all, sent to every route that reads one."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from typing import Any

from api_bench import Bench, assert_problem

LIMIT = 100_000  # The bench's.
BOMB = gzip.compress(b" " * 50_000_000)

Refusal = tuple[int, str]
NO_JSON: dict[bytes, Refusal] = {
    b'{"name": "cut': (400, "malformed_json"),
    b"": (400, "malformed_json"),
    b'{"name": "\xff\xfe"}': (400, "malformed_json"),
    b"\x00\x01\x02": (400, "malformed_json"),
    BOMB: (400, "malformed_json"),
    b"[" * 50_000: (400, "malformed_json"),
    b'{"a":' * 15_000: (400, "malformed_json"),
    b'{"name": NaN}': (400, "malformed_json"),
    b'{"name": ' + b"9" * 50_000 + b"}": (400, "malformed_json"),
    b"[]": (422, "invalid_request"),
    b"null": (422, "invalid_request"),
    b'"text"': (422, "invalid_request"),
    b'{"name": "a\\u0000b"}': (422, "invalid_request"),
    b'{"name": "\\ud800"}': (422, "invalid_request"),
    b'{"\\ud800": 1e999}': (422, "invalid_request"),
}


def routes_with_bodies(bench: Bench) -> Iterator[tuple[str, str]]:
    """Yields method and URL of every operation that reads a body, with ids that nothing has."""
    for path, methods in bench.client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                yield method.upper(), re.sub(r"{(\w+)}", r"\1", path)


def send(bench: Bench, method: str, url: str, body: Any, key: str, **headers: str) -> Any:
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return bench.client.request(method, url, content=body, headers={**bench.auth(key), **sent})


def test_no_route_reads_what_is_no_json(bench: Bench) -> None:
    key = bench.key_with("*", "admin")
    for method, url in routes_with_bodies(bench):
        for body, (status, code) in NO_JSON.items():
            response = send(bench, method, url, body, key)
            # Some routes look for the thing first; none has it.
            if response.status_code != 404:
                assert_problem(response, status, code)


def test_no_route_reads_more_than_the_limit_or_opens_what_is_compressed(bench: Bench) -> None:
    key = bench.key_with("*", "admin")
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(10_000)
            yield b" " * 10_000

    called = 0
    for method, url in routes_with_bodies(bench):
        assert_problem(send(bench, method, url, b" " * (LIMIT + 1), key), 413, "payload_too_large")
        for encoding in ("gzip", "deflate", "br", "zstd", "gzip, identity"):
            response = send(bench, method, url, BOMB, key, Content_Encoding=encoding)
            assert_problem(response, 415, "unsupported_media_type")
        assert_problem(send(bench, method, url, b"{}", key, Content_Type="text/html"), 415, "unsupported_media_type")
        assert_problem(
            send(bench, method, url, b"{}", key, Content_Type="application/zip"), 415, "unsupported_media_type"
        )
        called += 1
    assert called >= 9
    assert_problem(send(bench, "POST", "/v1/jobs", endless(), key), 413, "payload_too_large")
    assert bench.get("/healthz").status_code == 200


def test_prompt_files_that_are_not_what_they_say(bench: Bench) -> None:
    def upload(body: bytes, media_type: str) -> Any:
        headers = {**bench.auth(), "Content-Type": media_type}
        return bench.client.post("/v1/datasets?name=d", content=body, headers=headers)

    for body, media_type in (
        (BOMB, "text/plain"),
        (b"\xff\xfea\x00", "text/plain"),
        (b"", "text/plain"),
        (b"\n" * 90_000, "text/plain"),
        (b"a\0b", "text/plain"),
        (b"x" * 90_000, "text/plain"),
        (BOMB, "application/jsonl"),
        (b'{"prompt": "a"}\n{"prompt": ', "application/jsonl"),
        (b'{"prompt": "a"} {"prompt": "b"}', "application/jsonl"),
        (b"[" * 90_000, "application/jsonl"),
        (b'{"prompt": "\\ud800"}', "application/jsonl"),
        (b'{"prompt": 1}', "application/jsonl"),
        (b'{"prompt": "a", "split": "' + b"s" * 80_000 + b'"}', "application/jsonl"),
        (b"9" * 80_000, "application/jsonl"),
    ):
        response = upload(body, media_type)
        assert response.status_code in (400, 415, 422), (body[:40], media_type, response.text[:300])
        assert len(response.text) < 200_000, "an error is no echo of what was sent"
        assert_problem(response, response.status_code, response.json()["code"])
    assert bench.get("/v1/datasets").json()["data"] == []
