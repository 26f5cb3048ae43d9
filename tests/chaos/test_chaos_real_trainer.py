"""The real trainer on the tiny model, with a fault after each new checkpoint, and beside it one that nothing disturbs.

Its adapter must be equal to the byte, and its rewards to the bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from chaos_faults import Faults
from chaos_invariants import (
    Evidence,
    events_are_numbered_without_gap,
    every_attempt_has_ended,
    every_checkpoint_is_whole,
    every_job_ended_as_its_user_asked,
    no_attempt_wrote_after_its_end,
)
from chaos_schedule import Fault
from chaos_servers import BUCKET
from chaos_service import ChaosService, wait_for
from chaos_user import User

from jobs.db import make_engine, make_session_factory, transaction
from jobs.settings import DatabaseSettings

FAULTS = int(os.environ.get("FAULTS") or 0)
KINDS = (
    "kill store",
    "kill worker",
    "kill postgres",
    "kill trainer",
    "truncate store",
    "hang network",
    "stop worker",
    "fail store",
)
SPEC: dict[str, Any] = {
    "name": "real",
    "base_model": "tiny-flux-shapes",
    "prompts": {"inline": ["a red circle", "a blue square"]},
    "reward": {"components": [{"type": "shapes"}]},
    "method": {"type": "egrpo", "sampling_steps": 4, "active_steps": [0], "group_size": 4, "entropy_threshold": 0.5},
    "training": {"steps": 60, "prompts_per_update": 1, "learning_rate": 1e-3, "lora": {"rank": 4, "alpha": 8}},
    "evaluation": {"every_steps": 30, "prompts": 2, "images_per_prompt": 1},
    "checkpoint": {"every_steps": 4},
}
ADAPTER = "pytorch_lora_weights.safetensors"
LOOKED_AT = (
    every_job_ended_as_its_user_asked,
    events_are_numbered_without_gap,
    every_attempt_has_ended,
    no_attempt_wrote_after_its_end,
    every_checkpoint_is_whole,
)


@pytest.fixture
def service(folder: Path) -> Iterator[ChaosService]:
    # A trainer on one of two cores may starve its supervisor for longer than the scripted one.
    slower = {"EGRPO_LEASE_SECONDS": "6", "OMP_NUM_THREADS": "1"}
    with closing(ChaosService(folder, [sys.executable, "-m", "egrpo", "train"], slower)) as service:
        yield service


@pytest.mark.skipif(
    FAULTS < 100, reason="four minutes of one core; `make chaos` has it, tests/e2e kills this trainer too"
)
@pytest.mark.timeout(1800)
def test_the_real_trainers_adapter_is_that_of_an_undisturbed_run(service: ChaosService, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(SPEC))
    command = [sys.executable, "-m", "egrpo", "train", str(spec), "--output", str(tmp_path / "undisturbed")]
    with closing(User(list(service.api_ports.values()), service.new_key(), seed=0)) as user:
        job_id = user.submit(SPEC)
        with subprocess.Popen(command, env=service.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as alone:
            faults = Faults(service, lambda: None)
            known: set[str] = set()
            for number, kind in enumerate(KINDS):
                wait_for(lambda known=known: user.states(job_id) - known, f"checkpoint before {kind}", 600)
                known = user.states(job_id)
                print(faults.strike(Fault(0, kind, number, lasts_s=1.0)))
            wait_for(lambda: not user.unfinished(), "end of the job", 600, told=user.told)
            faults.settle()
            assert alone.wait() == 0
        assert wrong(service, user) == []
        expected = tmp_path / "undisturbed"
        assert user.adapter(job_id, ADAPTER) == (expected / "adapter" / ADAPTER).read_bytes()
        assert user.metric(job_id, "reward_mean") == reward_means(expected / "metrics.ndjson")


def wrong(service: ChaosService, user: User) -> list[str]:
    engine = make_engine(DatabaseSettings(database_url=service.servers.database_url))
    with transaction(make_session_factory(engine)) as session:
        found = Evidence(session, service.servers.s3.client(), BUCKET, [], service.scenario, user.may_end)
        lines = [line for invariant in LOOKED_AT for line in invariant(found)]
    engine.dispose()
    return lines


def reward_means(path: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["step"], row["values"]["reward_mean"]) for row in rows if "reward_mean" in row["values"]]
