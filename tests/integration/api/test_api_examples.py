"""The shell examples of docs/api.md and the README that talk to the API, as they stand there, against a served one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_bench import SPEC, Served
from pydantic import SecretStr
from sqlalchemy import update
from typer.testing import CliRunner

from egrpo_client.cli import app
from jobs import api_keys, leases
from jobs.sealing import new_key
from jobs.settings import Settings
from jobs.states import Status
from jobs.tables import Job

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "api.md").read_text()
# Indented blocks, the first word of which is curl.
EXAMPLES = [
    "\n".join(line[4:] for line in block.splitlines())
    for block in re.findall(r"(?<=\n\n)((?:    .*\n)+)", PAGE)
    if block.startswith("    curl")
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"secret_keys": SecretStr(new_key())})


class Shell:
    """A shell in a folder of its own, whose curl says on stderr which status each answer had."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.served, self.folder = served, folder
        (folder / ".curlrc").write_text('write-out = "%{stderr}%{http_code}\\n"\nmax-time = 10\nsilent\n')
        self._left = list(EXAMPLES)

    def run(self, fragment: str, statuses: str, **variables: str) -> str:
        """Runs the page's next example, which has the fragment in it; returns what it prints.

        Only a day that the page names as one ahead is moved, so that it stays ahead.
        """
        example = self._left.pop(0)
        assert fragment in example
        example = example.replace('"2027-01-31T', f'"{datetime.now(UTC).year + 1}-01-31T')
        given = {"URL": self.served.url, "KEY": self.served.bench.key, **variables}
        env = {"PATH": os.environ["PATH"], "CURL_HOME": str(self.folder), "LC_ALL": "C.UTF-8", **given}
        command = ["bash", "-euo", "pipefail", "-c", example]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr.split()) == (0, statuses.split()), (example, done.stdout, done.stderr)
        return done.stdout

    def json(self, fragment: str, status: str, **variables: str) -> Any:
        return json.loads(self.run(fragment, status, **variables))

    @property
    def left(self) -> list[str]:
        return self._left


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
def test_every_shell_example_of_the_page_runs(served: Served, tmp_path: Path) -> None:
    bench, shell = served.bench, Shell(served, tmp_path)
    (tmp_path / "job.json").write_text(json.dumps(SPEC))
    (tmp_path / "prompts.txt").write_text("a red circle\na black star\n")
    with httpx.Client(base_url=served.url, headers=bench.auth()) as http:
        done = submitted(http)
        assert served.work() == done
        failed = submitted(http, metadata={"ticket": "ML-88"})
        claim = bench.claim()
        with bench.transaction() as session:
            leases.end(session, leases.guard(session, claim.job_id, claim.epoch), Status.FAILED, None, phase="done")
        changed = at_version(http, submitted(http), 12)
        paused = submitted(http, limits={"max_gpu_hours": 6})
        http.post(f"/v1/jobs/{paused}/pause").raise_for_status()
        with bench.transaction() as session:
            session.execute(update(Job).where(Job.id == paused).values(gpu_seconds=6 * 3600))
            admin_key = api_keys.create(session, bench.project, "admin", ("*", "admin"))
        (file,) = http.get("/v1/adapters").json()["data"][0]["files"]

    assert shell.json("/v1/jobs/validate", "200")["memory"]["basis"] == "estimated"
    assert "event: done" in shell.run("/events/stream", "200", ID=done)
    assert shell.json('If-Match: "12"', "200", ID=changed)["metadata"] == {"ticket": "ML-88"}
    shell.run("adapter.safetensors", "200", FILE_URL=file["url"])
    assert (tmp_path / "adapter.safetensors").stat().st_size == file["size_bytes"]
    assert shell.json("/v1/adapters?", "200")["data"] == [], "the job has made none for ComfyUI"
    assert shell.json("/v1/datasets", "201")["name"] == "posters"
    assert '"status":"queued"' in shell.run("/resume", "200 200", ID=paused)
    assert [job["id"] for job in shell.json("status=failed", "200")["data"]] == [failed]
    shell.run("metrics.csv", "200", ID=done)
    assert "reward_mean,0.5" in (tmp_path / "metrics.csv").read_text()
    assert shell.json("/samples", "200", ID=done)["data"] == [], "of a fourth prompt, which it does not have"
    assert shell.run("/logs", "200", ID=done).endswith(" torch is loaded\n")
    assert shell.json("/v1/api-keys", "201")["scopes"] == ["jobs:read", "jobs:write"]
    assert shell.json("/v1/audit-events", "200")["data"] == []
    limits = shell.json("/v1/projects", "200", ID=bench.project, ADMIN_KEY=admin_key)["limits"]
    assert (limits["max_concurrent_jobs"], limits["max_storage_bytes"]) == (4, 500_000_000_000)
    assert shell.json("/v1/secrets", "201", HF_TOKEN=f"hf_{34 * 'x'}")["name"] == "hub token"
    assert shell.json("/v1/webhook-endpoints", "201")["events"] == ["job.failed", "job.succeeded"]
    assert shell.left == []


def test_every_command_of_the_readme_runs(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red circle\na black star\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    block = re.search(r"    egrpo up .*?    egrpo down\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    # What starts and ends the stack is tested with the stack: tests/integration/stack.
    submit, verbs, _ = (line.partition("  #")[0].split("egrpo ", 1)[1] for line in block[0].splitlines()[1:-1])
    with served.working():
        run(submit)
    with httpx.Client(base_url=served.url, headers=served.bench.auth()) as http:
        (done,) = (job["id"] for job in http.get("/v1/jobs", params={"status": "succeeded"}).json()["data"])
        for words in map(str.strip, verbs.split("|")):
            queued = submitted(http) if words.startswith(("cancel", "pause", "resume")) else done
            if words.startswith("resume"):
                http.post(f"/v1/jobs/{queued}/pause").raise_for_status()
            run(words.replace("JOB", queued))
    assert "egrpo RESOURCE VERB" in block[0]
    run(block[0].split("as in: egrpo ")[1].splitlines()[0])


def run(words: str) -> None:
    """Runs a command of `egrpo` and checks that it has succeeded."""
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, (words, result.output, result.exception)


def submitted(http: httpx.Client, **changes: Any) -> str:
    """Submits a job and returns its id."""
    return str(http.post("/v1/jobs", json={**SPEC, **changes}).raise_for_status().json()["id"])


def at_version(http: httpx.Client, job_id: str, version: int) -> str:
    """Changes a job until it has that version; returns its id."""
    while (job := http.get(f"/v1/jobs/{job_id}").json())["version"] < version:
        http.patch(f"/v1/jobs/{job_id}", json={"name": f"version {job['version']}"}).raise_for_status()
    return job_id
