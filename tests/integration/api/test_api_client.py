"""The Python client against the service: the examples of docs/client.md, and files over connections that are cut."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from api_bench import PATIENCE_S, SPEC, Cable, Served
from standardwebhooks import Webhook
from typer.testing import CliRunner

from egrpo_client import AsyncClient, Client, Retries
from egrpo_client.cli import app, exit_code
from egrpo_client.errors import ConflictError, UnreachableError
from jobs import events

PAGE = (Path(__file__).parents[3] / "docs" / "client.md").read_text()


def test_every_example_of_the_page_runs(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with served.working(), contextlib.redirect_stdout(printed):
        for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(compile(example, "docs/client.md", "exec"), names)
    assert (tmp_path / "out" / "posters" / "adapter" / "pytorch_lora_weights.safetensors").stat().st_size == 300_032
    told = printed.getvalue()
    for expected in (
        "1 {'reward_mean': 0.5}",
        "1 output torch is loaded",
        "['a red circle', 'a black star']",
        "reward_mean",
        "['succeeded']",
        "/prompts/inline: ",
        "/reward/components: ",
    ):
        assert expected in told
    body = '{"type": "job.succeeded"}'
    now = datetime.now(UTC)
    signature = Webhook("whsec_c2VjcmV0LW9mLXRoZS1lbmRwb2ludA==").sign("msg_1", now, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert names["on_webhook"](body.encode(), headers) == 204
    assert names["on_webhook"](b"{}", headers) == 400


def test_every_command_of_the_page_runs_and_the_last_one_comes_too_late(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(json.dumps(SPEC))
    (tmp_path / "prompts.txt").write_text("a red circle\na black star\n")
    (examples,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    job_id, told = "", ""
    with served.working():
        for line in examples.splitlines():
            words = ["" if word == "$" else job_id if word == "JOB" else word for word in line.split()][2:]
            result = CliRunner().invoke(app, words)
            told += result.output
            job_id = next(iter(re.findall(r"job_\w+", told)), "")
            if words[:2] != ["jobs", "cancel"]:
                assert result.exception is None, (line, result.output, result.exception)
    assert isinstance(result.exception, ConflictError)
    assert exit_code(result.exception) == 5
    assert f"{job_id} succeeded" in told
    assert '"ticket": "ML-88"' in told
    assert "1 output     info    torch is loaded" in told
    assert "reward_mean,0.5" in told
    assert (tmp_path / "out" / "posters" / "report.json").exists()


def test_both_halves_follow_jobs_side_by_side(served: Served) -> None:
    with Client.from_environment() as client:
        jobs = [client.submit({**SPEC, "name": str(number)}) for number in range(3)]
        assert [job["name"] for job in client.list_jobs(limit=2)] == ["2", "1"]

        async def all_ended() -> list[str]:
            async with AsyncClient.from_environment() as waiting:
                ended = await asyncio.gather(*(waiting.job(job.id).wait(timeout_s=PATIENCE_S) for job in jobs[1:]))
                seqs = [event["seq"] async for event in waiting.job(jobs[0].id).events()]
                assert seqs == list(range(1, len(seqs) + 1))
                return [job["status"] for job in ended]

        with served.working():
            assert asyncio.run(all_ended()) == ["succeeded", "succeeded"]
        assert jobs[0].wait()["status"] == "succeeded"


def test_each_event_is_seen_once_over_a_connection_that_is_cut_again_and_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egrpo_client.sync.follow.BACKOFF_S", 0.05)
    cable = Cable("127.0.0.1", served.port)
    with Client(f"http://127.0.0.1:{cable.port}", served.bench.key, retries=Retries(backoff_s=0.05)) as client:
        job = client.submit(SPEC)
        seqs = []
        working = threading.Thread(target=served.work)
        for event in job.events():
            seqs.append(event["seq"])
            if event["seq"] < 40:
                with served.bench.transaction() as session:
                    events.append_all(session, job.id, [("log", {"n": n}) for n in range(10)])
                if event["seq"] % 8 == 1:
                    cable.cut()
                    cable.mend()
            elif event["seq"] == 40:
                working.start()
    working.join()
    assert job.state is not None
    assert job.state["status"] == "succeeded"
    assert len(seqs) > 390
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_download_that_was_cut_goes_on_where_it_was(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egrpo_client.sync.files.BACKOFF_S", 0.01)
    cable = Cable("127.0.0.1", served.port)
    with Client(served.url, served.bench.key) as direct:
        job_id = direct.submit(SPEC).id
    assert served.work() == job_id
    with Client(f"http://127.0.0.1:{cable.port}", served.bench.key) as client:
        (checkpoint,) = client.list_checkpoints(job_id, kind="adapter")
        (file,) = checkpoint["files"]
        whole = client.get_checkpoint_file(job_id, checkpoint["id"], file["path"])
        (tmp_path / "w.part").write_bytes(whole[:100_000])
        cable.cut()
        wanted = (job_id, checkpoint["id"], file["path"], tmp_path / "w")
        monkeypatch.setattr("egrpo_client.sync.files.ATTEMPTS", 2)
        with pytest.raises(UnreachableError):
            client.save_checkpoint_file(*wanted)
        assert (tmp_path / "w.part").read_bytes() == whole[:100_000]
        cable.mend()
        saved = client.save_checkpoint_file(*wanted)
        assert (saved.sha256, saved.size_bytes) == (file["sha256"], file["size_bytes"])
    assert (tmp_path / "w").read_bytes() == whole
