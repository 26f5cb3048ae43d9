"""Settings refuse by name; every error has a status and a code of its own."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from jobs import errors
from jobs.errors import FieldError, InvalidRequest, ServiceError, SettingsError
from jobs.settings import DatabaseSettings, Settings, load

ENV = {
    "EGRPO_DATABASE_URL": "postgresql://u:pw1@h/d",
    "EGRPO_BROKER_URL": "redis://:pw2@h/0",
    "EGRPO_S3_ENDPOINT": "http://h:1/",
    "EGRPO_S3_ACCESS_KEY": "a",
    "EGRPO_S3_SECRET_KEY": "pw3",
}


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def test_from_the_environment() -> None:
    settings = load(Settings)
    assert settings.database_url == "postgresql+psycopg://u:pw1@h/d"
    assert (settings.s3_endpoint, settings.s3_public_endpoint, settings.s3_bucket) == ("http://h:1", None, "egrpo")
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.reaper_seconds) == (90, 15, 15)


def test_no_secret_is_shown() -> None:
    shown = repr(load(Settings)) + str(load(Settings))
    assert not re.search("pw[123]", shown)


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENV:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError) as caught:
        load(Settings)
    for name in ENV:
        assert f"{name} is not set" in caught.value.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EGRPO_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("EGRPO_S3_ENDPOINT", "hunter2:9000"),
        ("EGRPO_LEASE_SECONDS", "hunter2"),
        ("EGRPO_LEASE_SECONDS", "20"),
        ("EGRPO_MAX_BODY_BYTES", "0"),
    ],
)
def test_what_is_wrong_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load(Settings)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_administration_needs_only_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(ENV) - {"EGRPO_DATABASE_URL"}:
        monkeypatch.delenv(name)
    load(DatabaseSettings)


def tree() -> list[type[ServiceError]]:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ServiceError)]
    return [kind for kind in kinds if kind is not ServiceError]


def test_the_docstring_draws_the_tree() -> None:
    doc = errors.__doc__ or ""
    for kind in tree():
        assert re.search(rf"─ {kind.__name__}\b", doc), kind
        line = next(line for line in doc.splitlines() if re.search(rf"─ {kind.__name__}\b", line))
        if kind is not SettingsError and kind is not errors.Unavailable:
            assert f"{kind.status} {kind.code}" in re.sub(" +", " ", line), line


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)


def test_field_errors_leave_out_what_does_not_apply() -> None:
    assert FieldError("missing", "Field required", pointer="").as_json() == {
        "pointer": "",
        "code": "missing",
        "detail": "Field required",
    }
    many = InvalidRequest([FieldError("a", "b", pointer=f"/{n}") for n in range(9)])
    assert many.detail == "9 problems: /0, /1, /2, /3, /4, …"
    assert pickle.loads(pickle.dumps(ServiceError("x"))).detail == "x"
