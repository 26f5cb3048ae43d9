"""What the OpenAPI document becomes in the client: types, methods, and the half that does not wait."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from contract import check as check_module
from contract.sdk.annotations import annotation, model_name
from contract.sdk.models import models_text
from contract.sdk.operations import operations_text
from contract.sdk.synchronous import synchronous

TEXT = {"type": "string"}


def operation(id_: str, answer: dict[str, Any] | None, *parameters: Any, **more: Any) -> dict[str, Any]:
    content = {"content": {kind: {"schema": schema} for kind, schema in answer.items()}} if answer else {}
    return {"operationId": id_, "tags": ["frames"], "parameters": parameters, "responses": {"200": content}, **more}


def query(name: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"in": "query", "name": name, "schema": schema or TEXT, **more}


def reference(name: str) -> dict[str, Any]:
    return {"application/json": {"$ref": f"#/components/schemas/{name}"}}


PATH = {"in": "path", "name": "frame_id", "required": True, "schema": TEXT}
LIMIT = query("limit", {"anyOf": [{"type": "integer", "maximum": 50}, {"type": "null"}]})
KEY = {"in": "header", "name": "Idempotency-Key", "schema": TEXT}
JSON_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
PAGE = {"type": "object", "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Frame"}}}}
FRAME = {"type": "object", "properties": {"id": TEXT, "at": {"type": "integer"}}, "required": ["id"]}
DOCUMENT: dict[str, Any] = {
    "paths": {
        "/v1/frames": {
            "get": operation(
                "listFrames", reference("List_Frame_"), LIMIT, query("cursor"), query("from", required=True)
            ),
            "post": operation("createFrame", reference("Frame"), KEY, **JSON_BODY),
        },
        "/v1/frames/{frame_id}": {
            "delete": operation("deleteFrame", None, PATH),
            "get": operation("getFrameFile", {"application/octet-stream": {}}, PATH),
        },
        "/v1/frames/{frame_id}/events": {"get": operation("streamFrame", {"text/event-stream": TEXT}, PATH)},
    },
    "components": {"schemas": {"List_Frame_": PAGE, "Frame": FRAME}},
}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string", "format": "date-time"}, "str"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "int | None"),
        ({"enum": ["a", "b"]}, 'Literal["a", "b"]'),
        ({"enum": ["auto", True, None]}, 'Literal["auto", True, None]'),
        ({"const": "egrpo"}, 'Literal["egrpo"]'),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Frame"}}, "list[models.Frame]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]"),
        ({"type": "object", "additionalProperties": True}, "dict[str, Any]"),
        ({}, "Any"),
    ],
)
def test_types(schema: dict[str, Any], kind: str) -> None:
    assert annotation(schema, module="models.") == kind


def test_models_say_what_may_be_missing() -> None:
    assert model_name("List_str_") == "StrList"
    text = models_text(DOCUMENT)
    assert "class Frame(TypedDict):" in text
    assert "    at: NotRequired[int]" in text
    odd = {"type": "object", "properties": {"from": TEXT, "to-day": TEXT}, "required": ["from"]}
    text = models_text({"components": {"schemas": {"Odd": odd}}})
    assert "Odd = TypedDict('Odd', {'from': 'str', 'to-day': 'NotRequired[str]'})" in text


def test_each_kind_of_operation_has_its_kind_of_method() -> None:
    text = operations_text(DOCUMENT)
    ast.parse(text)
    for expected in (
        "def list_frames(self, *, limit: int | None = None, from_: str) -> AsyncIterator[models.Frame]:",
        'self._rows(Request(\'GET\', "/v1/frames", params={"from": from_}), limit, 50)',
        "async def create_frame(self, body: dict[str, Any], *, idempotency_key: str | None = None) -> models.Frame:",
        'headers={"Idempotency-Key": idempotency_key or new_key()}, body=body',
        "async def delete_frame(self, frame_id: str) -> None:",
        "async def get_frame_file(self, frame_id: str) -> bytes:",
        "async def save_frame_file(self, frame_id: str, target: Path) -> Downloaded:",
        "def stream_frame(self, frame_id: str) -> AsyncIterator[Event]:",
        'f"/v1/frames/{quoted(frame_id)}/events"',
    ):
        assert expected in text


def test_the_other_half_says_the_same_without_waiting() -> None:
    waiting = """
async def all_of(client: AsyncClient) -> AsyncIterator[Row]:
    async with aclosing(client.rows()) as rows, client.opened() as response:
        async for row in rows:
            await runtime.sleep(1)
            yield await response.aread()
"""
    assert (
        synchronous(waiting)
        == """
def all_of(client: Client) -> Iterator[Row]:
    with closing(client.rows()) as rows, client.opened() as response:
        for row in rows:
            runtime.sleep(1)
            yield response.read()
"""
    )


def test_a_file_that_was_edited_by_hand_is_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edited.py").write_text("x = 2\n")
    (tmp_path / "right.py").write_text("x = 1\n")
    files = {tmp_path / name: "x = 1\n" for name in ("edited.py", "right.py", "missing.py")}
    monkeypatch.setattr(check_module, "made_files", lambda document: files)
    assert [path.name for path in check_module.outdated({})] == ["edited.py", "missing.py"]
