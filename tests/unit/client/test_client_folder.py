"""The stack's data folder: whose it is, which version, how much room, and who may read it."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from egrpo_client.stack.errors import AlreadyRunningError, DataFolderError, DiskSpaceError
from egrpo_client.stack.folder import FORMAT, StackFolder, StackState
from egrpo_client.stack.processes import ProcessIdentity


def test_state_survives_and_is_for_the_owner_only(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "home")
    folder.prepare()
    identity = ProcessIdentity("api", 1, 2.5)
    state = StackState(status="running", ports={"api": 1}, supervisor=identity, processes=[identity])
    secret = state.secret("valkey")
    folder.save(state)
    assert folder.load() == state
    assert folder.load().secret("valkey") == secret
    assert folder.state_path.stat().st_mode & 0o777 == 0o600
    assert folder.home.stat().st_mode & 0o777 == 0o700


def test_folder_of_another_format_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(DataFolderError, match=rf"has format {FORMAT + 1}; this egrpo uses format {FORMAT}.*EGRPO_HOME"):
        StackFolder(tmp_path).prepare()
    assert list(tmp_path.iterdir()) == [tmp_path / "stack.json"]


def test_folder_of_another_postgresql_is_left_alone(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "home")
    folder.prepare()
    folder.save(StackState())
    (folder.home / "postgres").mkdir()
    (folder.home / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(DataFolderError, match=r"made by PostgreSQL 16; this egrpo runs PostgreSQL 18.*EGRPO_HOME"):
        folder.prepare()


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataFolderError, match=r"not empty and holds no stack.json \(thesis.tex"):
        StackFolder(tmp_path).prepare()
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="is a file"):
        StackFolder(tmp_path / "file").prepare()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataFolderError, match="Permission denied"):
        StackFolder(tmp_path / "home").prepare()


def test_full_disk_names_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0.4e9))
    with pytest.raises(DiskSpaceError, match=r"has 0\.4 GB free; the local stack needs 2 GB"):
        StackFolder(tmp_path / "home").prepare()


def test_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "home")
    folder.prepare()
    assert not folder.is_held()
    with folder.held():
        assert folder.is_held()
        with pytest.raises(AlreadyRunningError, match=r"already runs.*egrpo down"), folder.held():
            pass
    assert not folder.is_held()
