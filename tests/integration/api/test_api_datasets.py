"""Prompt sets: sent as JSON or as a file, read by pages, named by jobs, and not deleted under them."""

from __future__ import annotations

import json
from typing import Any

from api_bench import SPEC, Bench, assert_problem

SPLITS = {"train": ["a red circle", "a blue square"], "test": ["a green triangle"]}
NEW = {"name": "shapes", "splits": SPLITS, "metadata": {"team": "posters"}}


def create(bench: Bench, **changes: Any) -> dict[str, Any]:
    response = bench.post("/v1/datasets", {**NEW, **changes})
    assert response.status_code == 201, response.text
    return dict(response.json())


def send_file(bench: Bench, body: str | bytes, media_type: str, **params: str) -> Any:
    headers = {**bench.auth(), "Content-Type": media_type}
    return bench.client.post("/v1/datasets", content=body, params=params, headers=headers)


def test_a_dataset_is_created_listed_and_read_by_pages(bench: Bench) -> None:
    made = create(bench)
    assert made["splits"] == {"train": 2, "test": 1}
    assert made["size_bytes"] == sum(len(prompt) for prompts in SPLITS.values() for prompt in prompts)
    url = f"/v1/datasets/{made['id']}"
    assert bench.get(url).json() == made
    first = bench.get(f"{url}/prompts", limit=1).json()
    assert (first["data"], first["has_more"]) == (["a red circle"], True)
    assert bench.get(f"{url}/prompts", limit=1, cursor=first["next_cursor"]).json() == {
        "data": ["a blue square"],
        "has_more": False,
        "next_cursor": None,
    }
    assert bench.get(f"{url}/prompts", split="test").json()["data"] == SPLITS["test"]
    other = create(bench, name="others")
    assert [each["id"] for each in bench.get("/v1/datasets").json()["data"]] == [other["id"], made["id"]]
    assert [each["id"] for each in bench.get("/v1/datasets", name="shapes").json()["data"]] == [made["id"]]


def test_files_of_json_lines_and_of_plain_text_hold_what_the_json_holds(bench: Bench) -> None:
    lines = "\n".join(json.dumps({"prompt": p, "split": s}) for s, prompts in SPLITS.items() for p in prompts)
    by_lines = send_file(bench, lines, "application/jsonl", name="shapes")
    assert by_lines.status_code == 201, by_lines.text
    assert by_lines.json()["sha256"] == create(bench)["sha256"]
    text = send_file(bench, "\ufeffa red circle\r\n\n a blue square \n".encode(), "text/plain", name="text")
    assert text.status_code == 201, text.text
    assert bench.get(f"/v1/datasets/{text.json()['id']}/prompts").json()["data"] == SPLITS["train"]


def test_every_wrong_line_of_a_file_is_told_with_its_number(bench: Bench) -> None:
    lines = '{"prompt": "a red circle"}\n{"prompt": 7}\n{nonsense\n{"text": "x"}\n{"prompt": "x", "split": "A B"}'
    body = assert_problem(send_file(bench, lines, "application/x-ndjson", name="bad"), 422, "invalid_request")
    found = [(each["pointer"], each["code"]) for each in body["errors"]]
    assert found == [
        ("/1/prompt", "invalid_value"),
        ("/2", "malformed_json"),
        ("/3/prompt", "missing"),
        ("/3/text", "unknown_field"),
        ("/4/split", "invalid_value"),
    ]
    assert all(f"line {int(pointer.split('/')[1]) + 1}" in each["detail"] for (pointer, _), each in zip(
        found, body["errors"], strict=True
    ))  # fmt: skip
    assert bench.get("/v1/datasets").json()["data"] == []


def test_what_cannot_be_a_dataset_is_refused_by_name(bench: Bench) -> None:
    assert_problem(send_file(bench, "a red circle", "text/plain"), 422, "invalid_request")
    assert_problem(send_file(bench, "\n \n", "text/plain", name="empty"), 422, "invalid_request")
    assert_problem(send_file(bench, b"\xff\xfe", "text/plain", name="not utf-8"), 422, "invalid_request")
    assert_problem(send_file(bench, "a,b", "text/csv", name="csv"), 415, "unsupported_media_type")
    zipped = bench.client.post(
        "/v1/datasets?name=zip",
        content=b"\x1f\x8b",
        headers={**bench.auth(), "Content-Type": "text/plain", "Content-Encoding": "gzip"},
    )
    assert "Content-Encoding" in assert_problem(zipped, 415, "unsupported_media_type")["detail"]
    for change, pointer in (
        ({"splits": {}}, "/splits"),
        ({"splits": {"train": []}}, "/splits/train"),
        ({"splits": {"train": ["a\0b"]}}, "/splits/train/0"),
        ({"colour": "red"}, "/colour"),
        ({"name": " "}, "/name"),
    ):
        body = assert_problem(bench.post("/v1/datasets", {**NEW, **change}), 422, "invalid_request")
        assert pointer in [each["pointer"] for each in body["errors"]], (change, body["errors"])


def test_the_same_request_twice_makes_one_dataset(bench: Bench) -> None:
    first = bench.post("/v1/datasets", NEW, idempotency_key="k1")
    again = bench.post("/v1/datasets", NEW, idempotency_key="k1")
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert_problem(
        bench.post("/v1/datasets", {**NEW, "name": "x"}, idempotency_key="k1"), 422, "idempotency_key_reused"
    )


def test_a_job_names_its_prompts_by_dataset(bench: Bench) -> None:
    made = create(bench)
    by_dataset = {
        "prompts": {"dataset": made["id"]},
        "evaluation": {"prompts": {"dataset": made["id"], "split": "test"}},
    }
    job = bench.submit(**by_dataset)
    written_out = bench.submit(prompts={"inline": SPLITS["train"]}, evaluation={"prompts": {"inline": SPLITS["test"]}})
    shown = bench.get(f"/v1/jobs/{job['id']}").json()
    assert shown["spec"]["prompts"] == {"dataset": made["id"], "split": "train"}
    assert shown["spec_digest"] == bench.get(f"/v1/jobs/{written_out['id']}").json()["spec_digest"]
    dry = bench.post("/v1/jobs/validate", {**SPEC, **by_dataset}).json()
    assert (dry["work"]["train_prompts"], dry["work"]["evaluation_prompts"]) == (2, 1)
    assert dry["spec"]["prompts"] == {"dataset": made["id"], "split": "train"}


def test_a_dataset_is_not_deleted_under_a_job_that_has_not_ended(bench: Bench) -> None:
    made = create(bench)
    job = bench.submit(prompts={"dataset": made["id"]})
    url = f"/v1/datasets/{made['id']}"
    refused = bench.client.delete(url, headers=bench.auth())
    assert job["id"] in assert_problem(refused, 409, "in_use")["detail"]
    assert bench.post(f"/v1/jobs/{job['id']}/cancel").status_code in (200, 202)
    assert bench.client.delete(url, headers=bench.auth()).status_code == 204
    assert_problem(bench.get(url), 404, "not_found")
    assert bench.get("/v1/datasets").json()["data"] == []
    body = assert_problem(bench.post("/v1/jobs", {**SPEC, "prompts": {"dataset": made["id"]}}), 422, "invalid_request")
    assert [(each["pointer"], each["code"]) for each in body["errors"]] == [("/prompts/dataset", "unknown_dataset")]


def test_another_project_sees_uses_and_deletes_nothing(bench: Bench) -> None:
    made = create(bench)
    url, key = f"/v1/datasets/{made['id']}", bench.other_key
    assert bench.get("/v1/datasets", key=key).json()["data"] == []
    assert_problem(bench.get(url, key=key), 404, "not_found")
    assert_problem(bench.get(f"{url}/prompts", key=key), 404, "not_found")
    assert_problem(bench.client.delete(url, headers=bench.auth(key)), 404, "not_found")
    stolen = bench.post("/v1/jobs", {**SPEC, "prompts": {"dataset": made["id"]}}, key=key)
    assert assert_problem(stolen, 422, "invalid_request")["errors"][0]["code"] == "unknown_dataset"
