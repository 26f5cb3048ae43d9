"""Which models leave a full cache: what was used longest ago, and nothing that somebody uses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.spec import hub_repo
from worker.model_cache import ModelCache

OLD, MIDDLE, NEW = "lab/old", "lab/middle", "other/new"
MB = 10**6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache as the hub's client lays it out: three models of 1 MB, used at different times."""
    for age, repo in enumerate((NEW, MIDDLE, OLD)):
        add(tmp_path, repo, age_s=1000 * (age + 1))
    return tmp_path


def add(folder: Path, repo: str, *, age_s: float) -> None:
    home = folder / f"models--{repo.replace('/', '--')}"
    commit = "1" * 40
    for part in ("blobs", f"snapshots/{commit}", "refs"):
        (home / part).mkdir(parents=True)
    blob = home / "blobs" / "abc"
    blob.write_bytes(bytes(MB))
    (home / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/abc")
    (home / "refs" / "main").write_text(commit)
    then = blob.stat().st_mtime - age_s
    os.utime(blob, (then, then))


def repos(folder: Path) -> set[str]:
    return {path.name.removeprefix("models--").replace("--", "/") for path in folder.glob("models--*")}


def use(folder: Path, repo: str | None, limit_mb: float | None) -> None:
    with ModelCache(folder, None if limit_mb is None else int(limit_mb * MB)).used(repo):
        pass


def test_the_longest_unused_goes_first(folder: Path) -> None:
    use(folder, None, 2.5)
    assert repos(folder) == {MIDDLE, NEW}
    use(folder, None, 1)
    assert repos(folder) == {NEW}


def test_to_be_used_makes_it_the_newest(folder: Path) -> None:
    use(folder, OLD, 100)
    use(folder, None, 2)
    assert repos(folder) == {OLD, NEW}


def test_what_a_job_uses_stays_even_above_the_limit(folder: Path) -> None:
    with ModelCache(folder, 1).used(OLD):
        assert repos(folder) == {OLD}
        use(folder, NEW, 1e-6)
        assert repos(folder) == {OLD}
    assert repos(folder) == set()


def test_a_worker_that_is_killed_lets_go(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from worker.model_cache import ModelCache\n"
        f"with ModelCache(Path(sys.argv[1]), 10**9).used({OLD!r}): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "held\n"
            use(folder, None, 1e-6)
            assert repos(folder) == {OLD}
        finally:
            other.kill()
    use(folder, None, 1e-6)
    assert repos(folder) == set()


def test_a_model_that_is_only_being_fetched_is_in_use(folder: Path) -> None:
    """A second revision has no snapshot yet: to remove the first, and with it the repository, would take its files."""
    with ModelCache(folder, 10 * MB).used(OLD):
        incomplete = folder / "models--lab--old" / "blobs" / "def.incomplete"
        incomplete.write_bytes(bytes(MB))
        use(folder, None, 1e-6)
        assert incomplete.exists()


def test_without_a_limit_nothing_is_removed_or_made(folder: Path) -> None:
    use(folder, OLD, None)
    assert repos(folder) == {OLD, MIDDLE, NEW}
    assert not (folder / ".locks").exists()


def test_a_cache_that_is_not_there_or_cannot_be_written_stops_no_job(tmp_path: Path) -> None:
    use(tmp_path / "none", OLD, 1)
    (tmp_path / "file").touch()
    use(tmp_path / "file", OLD, 1)


def test_which_repository_a_job_uses() -> None:
    assert hub_repo("flux-1-dev") == "black-forest-labs/FLUX.1-dev"
    assert hub_repo({"repo": "Qwen/Qwen-Image", "revision": "7" * 40}) == "Qwen/Qwen-Image"
    assert hub_repo("tiny-flux-shapes") is None
