"""Each rule fires on the change that it is for, says where, and stays silent on what breaks nobody."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract import check as check_module
from contract.__main__ import check, release
from contract.breaking import breaking_changes
from contract.check import allowed_lines, complaints

Document = dict[str, Any]


def of_type(name: str, **properties: Any) -> Document:
    return {"type": "object", "properties": {"type": {"const": name}, **properties}, "required": ["type"]}


SCHEMAS: Document = {
    "Problem": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    "Draw": of_type("draw", steps={"type": "integer", "minimum": 1, "maximum": 9}),
    "Paint": of_type("paint"),
    "Body": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "maxLength": 200},
            "seed": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "size": {"enum": ["small", "large"]},
            "method": {"oneOf": [{"$ref": "#/components/schemas/Draw"}, {"$ref": "#/components/schemas/Paint"}]},
            "palette": {"type": "object", "properties": {"colours": {"type": "integer"}}, "required": ["colours"]},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["name"],
    },
    "Picture": {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "status": {"enum": ["wet", "dry"]},
            "score": {"type": "number"},
            "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Picture"}},
        },
        "required": ["id", "status"],
    },
}
OTHER_PALETTE = {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}
ANSWER = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Picture"}}}}
DOCUMENT: Document = {
    "paths": {
        "/pictures": {
            "post": {
                "operationId": "draw",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}},
                "responses": {"200": dict(ANSWER)},
            }
        },
        "/pictures/{id}": {
            "get": {
                "operationId": "getPicture",
                "parameters": [
                    {"in": "path", "name": "id", "required": True, "schema": {"type": "string"}},
                    {"in": "query", "name": "width", "schema": {"type": "integer", "maximum": 512}},
                ],
                "responses": {"200": {**ANSWER, "headers": {"ETag": {}}}, "404": {}},
            }
        },
    },
    "components": {"schemas": SCHEMAS},
}
Edit = Callable[[Document], object]


def post(document: Document) -> Document:
    operation: Document = document["paths"]["/pictures"]["post"]
    return operation


def get(document: Document) -> Document:
    operation: Document = document["paths"]["/pictures/{id}"]["get"]
    return operation


def fields(document: Document, schema: str) -> Document:
    properties: Document = document["components"]["schemas"][schema]["properties"]
    return properties


def width(document: Document) -> Document:
    parameter: Document = get(document)["parameters"][1]
    return parameter


def required(document: Document, schema: str) -> list[str]:
    names: list[str] = document["components"]["schemas"][schema]["required"]
    return names


def changed(edit: Edit) -> list[str]:
    document = copy.deepcopy(DOCUMENT)
    edit(document)
    return [str(change) for change in breaking_changes(DOCUMENT, document)]


BREAKING: list[tuple[Edit, str]] = [
    (lambda d: d["paths"]["/pictures/{id}"].pop("get"), "getPicture: is gone"),
    (lambda d: get(d).update(operationId="showPicture"), "getPicture: is called showPicture now"),
    (lambda d: get(d).update(security=[{"APIKey": []}]), "getPicture: needs a key now"),
    (lambda d: get(d)["parameters"].pop(), "getPicture query width: is gone"),
    (lambda d: get(d)["parameters"][0]["schema"].update(maxLength=9), "getPicture path 1: maxLength is 9 now"),
    (lambda d: width(d).update(required=True), "getPicture query width: is required now"),
    (
        lambda d: get(d)["parameters"].append({"in": "header", "name": "Day", "required": True}),
        "getPicture header Day: is required now",
    ),
    (lambda d: width(d)["schema"].update(maximum=256), "getPicture query width: maximum is 256 now"),
    (lambda d: width(d)["schema"].update(minimum=1), "getPicture query width: minimum is 1 now"),
    (lambda d: width(d)["schema"].update(type="boolean"), "getPicture query width: no longer accepts integer"),
    (lambda d: post(d).pop("requestBody"), "draw body: is gone"),
    (lambda d: post(d)["requestBody"].update(required=True), "draw body: is required now"),
    (lambda d: post(d)["requestBody"].update(content={"text/plain": {}}), "draw body: application/json is gone"),
    (lambda d: fields(d, "Body").pop("size"), "Body sent /size: is gone"),
    (lambda d: required(d, "Body").append("size"), "Body sent /size: is required now"),
    (lambda d: fields(d, "Body")["size"]["enum"].pop(), 'Body sent /size: no longer accepts "large"'),
    (lambda d: fields(d, "Body")["name"].update(enum=["a"]), 'Body sent /name: only accepts "a" now'),
    (lambda d: fields(d, "Body")["name"].update(pattern="^a"), 'Body sent /name: pattern is "^a" now'),
    (lambda d: fields(d, "Body")["seed"]["anyOf"].pop(), "Body sent /seed: no longer accepts null"),
    (
        lambda d: fields(d, "Body")["method"]["oneOf"].pop(),
        'Body sent /method: no longer accepts object of type "paint"',
    ),
    (lambda d: fields(d, "Body").update(palette={"type": "object"}), "Body sent /palette/colours: is gone"),
    (lambda d: fields(d, "Draw")["steps"].update(maximum=8), "Draw sent /steps: maximum is 8 now"),
    (
        lambda d: fields(d, "Body")["tags"]["items"].update(type="integer"),
        "Body sent /tags/*: no longer accepts string",
    ),
    (
        lambda d: fields(d, "Body")["metadata"].update(additionalProperties=False),
        "Body sent /metadata: takes no further fields now",
    ),
    (lambda d: get(d)["responses"].pop("200"), "getPicture answer 200: is gone"),
    (lambda d: get(d)["responses"]["200"].update(content={}), "getPicture answer 200: application/json is gone"),
    (lambda d: get(d)["responses"]["200"]["headers"].pop("ETag"), "getPicture answer 200: header ETag is gone"),
    (lambda d: fields(d, "Picture").pop("score"), "Picture received /score: is gone"),
    (lambda d: required(d, "Picture").remove("status"), "Picture received /status: may be left out now"),
    (lambda d: fields(d, "Picture")["status"]["enum"].append("lost"), 'Picture received /status: may now be "lost"'),
    (lambda d: fields(d, "Picture").update(id={"type": "integer"}), "Picture received /id: may now be integer"),
    (
        lambda d: fields(d, "Picture").update(status={"type": "string"}),
        'Picture received /status: may now be more than "dry", "wet"',
    ),
    (
        lambda d: fields(d, "Picture").update(score={"anyOf": [{"type": "number"}, {"type": "null"}]}),
        "Picture received /score: may now be null",
    ),
    (lambda d: fields(d, "Problem").pop("code"), "Problem received /code: is gone"),
]
HARMLESS: list[Edit] = [
    lambda d: d["paths"].update({"/frames": {"get": {"operationId": "listFrames", "responses": {}}}}),
    lambda d: d["paths"].update({"/pictures/{picture_id}": d["paths"].pop("/pictures/{id}")}),
    lambda d: get(d)["parameters"].append({"in": "query", "name": "height", "schema": {"type": "integer"}}),
    lambda d: get(d)["responses"].update({"429": {}}),
    lambda d: get(d)["responses"].pop("404"),
    lambda d: width(d)["schema"].update(maximum=1024, type="number", description="wider"),
    lambda d: fields(d, "Body").update(light={"type": "string"}),
    lambda d: required(d, "Body").remove("name"),
    lambda d: fields(d, "Body")["size"]["enum"].append("huge"),
    lambda d: fields(d, "Body")["method"]["oneOf"].append(of_type("etch")),
    lambda d: fields(d, "Body").update(palette={"oneOf": [fields(d, "Body")["palette"], OTHER_PALETTE]}),
    lambda d: fields(d, "Picture").update(frame={"type": "string"}),
    lambda d: required(d, "Picture").append("score"),
    lambda d: fields(d, "Picture")["status"]["enum"].pop(),
    lambda d: fields(d, "Picture")["score"].update(type="integer"),
    lambda d: fields(d, "Picture")["id"].update(maxLength=40, examples=["p1"]),
]


@pytest.mark.parametrize(("edit", "line"), BREAKING, ids=[line for _, line in BREAKING])
def test_what_breaks_clients_is_named_once(edit: Edit, line: str) -> None:
    assert changed(edit) == [line]


@pytest.mark.parametrize("edit", HARMLESS)
def test_what_breaks_nobody_is_no_change(edit: Edit) -> None:
    assert changed(edit) == []


def test_a_change_that_is_meant_is_allowed_and_a_line_for_none_is_not() -> None:
    document = copy.deepcopy(DOCUMENT)
    fields(document, "Picture").pop("score")
    texts = json.dumps(DOCUMENT), json.dumps(document)
    assert complaints(*texts, set()) == ["breaks clients: Picture received /score: is gone"]
    assert complaints(*texts, {"Picture received /score: is gone"}) == []
    assert complaints(texts[0], texts[0], {"draw: is gone"}) == ["allowed, but it is not so: draw: is gone"]


def test_the_kept_document_is_served_and_breaks_no_client_of_the_released_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check() == 0, capsys.readouterr().out


def test_a_check_that_fails_prints_the_diff_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = check_module.KEPT.read_text()
    released = json.loads(kept)
    released["paths"]["/v1/jobs"]["put"] = {"operationId": "replaceJobs"}
    for name, text in (
        ("KEPT", kept.replace("createJob", "makeJob")),
        ("RELEASED", json.dumps(released)),
        ("ALLOWED", ""),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(f"contract.__main__.{name}", tmp_path / name)
    assert check() == 1
    said = capsys.readouterr().out
    assert '-        "operationId": "makeJob",\n+        "operationId": "createJob",' in said
    assert "docs/openapi.json is not what the API serves: python -m" in said
    assert "breaks clients: replaceJobs: is gone" in said
    assert "contract/allowed.txt" in said
    release()
    assert (
        complaints((tmp_path / "RELEASED").read_text(), kept, allowed_lines((tmp_path / "ALLOWED").read_text())) == []
    )
