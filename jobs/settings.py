"""Settings from the environment (prefix EGRPO_). Built by whoever starts a process, never at import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import SettingsError

_PREFIX = "EGRPO_"
_S = TypeVar("_S", bound=BaseSettings)


class DatabaseSettings(BaseSettings):
    """What reaches the database: enough for migrations and `python -m jobs`. URLs may carry passwords: no repr."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    database_url: str = Field(repr=False)
    database_pool_size: int = Field(default=10, ge=1)
    database_connect_timeout_seconds: int = Field(default=3, ge=2)  # libpq treats 1 as 2
    database_statement_timeout_seconds: float = Field(default=10.0, gt=0)

    @field_validator("database_url")
    @classmethod
    def _is_psycopg(cls, value: str) -> str:
        """Takes the plain URL that Postgres tools print, too; the driver is always psycopg 3."""
        for scheme in ("postgresql://", "postgres://"):
            if value.startswith(scheme):
                return "postgresql+psycopg://" + value.removeprefix(scheme)
        if not value.startswith("postgresql+psycopg://"):
            raise ValueError("must begin with postgresql+psycopg://")
        return value


class SealingSettings(DatabaseSettings):
    """What reads and writes encrypted values, too."""

    # Fernet keys, with commas between them, the newest first; `python -m jobs new-secret-key` prints one.
    secret_keys: SecretStr = SecretStr("")

    def sealing_keys(self) -> tuple[str, ...]:
        """Returns the keys, the newest first; none if this service is to keep no secrets."""
        return tuple(key for part in self.secret_keys.get_secret_value().split(",") if (key := part.strip()))

    @model_validator(mode="after")
    def _keys_are_keys(self) -> SealingSettings:
        for key in self.sealing_keys():
            try:
                Fernet(key)
            except ValueError:
                raise ValueError("EGRPO_SECRET_KEYS must be Fernet keys: 32 bytes in URL-safe base64") from None
        return self


class Settings(SealingSettings):
    """Everything that api and worker share. No secret has a default."""

    broker_url: str = Field(repr=False)
    s3_endpoint: str
    s3_public_endpoint: str | None = None
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "egrpo"
    s3_region: str = "us-east-1"

    work_dir: Path = Path("/var/lib/egrpo/runs")
    lease_seconds: float = Field(default=90, gt=0)
    heartbeat_seconds: float = Field(default=15, gt=0)
    reaper_seconds: float = Field(default=15, gt=0)
    cancel_deadline_seconds: float = Field(default=120, gt=0)

    # What is removed from the store, and when: docs/operating.md.
    gc_grace_seconds: float = Field(default=3 * 86_400, ge=0)
    retain_states_days: float | None = Field(default=30, gt=0, le=36_500)
    retain_samples_days: float | None = Field(default=None, gt=0, le=36_500)
    retain_logs_days: float | None = Field(default=180, gt=0, le=36_500)

    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)  # 10 000 prompts of 1000 ASCII characters are 10 MB
    body_timeout_seconds: float = Field(default=60, gt=0)
    # How long the answer to a POST can be had again by its Idempotency-Key.
    idempotency_seconds: float = Field(default=7 * 86_400, ge=3_600)
    max_wait_seconds: float = Field(default=60, gt=0)
    rate_limit_per_minute: int = Field(default=6000, ge=0)  # requests of a key; 0: any number
    failed_auth_per_minute: int = Field(default=60, ge=0)  # wrong keys from an address; 0: any number
    presigned_seconds: int = Field(default=900, ge=1, le=604_800)

    # `host:port` pairs, with commas between them, that webhooks may reach though they are not public, or by http.
    outbound_allow_list: str = ""
    # The pauses between the attempts to send a webhook: three days in all.
    webhook_retry_seconds: tuple[float, ...] = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    webhook_disable_after_days: float = Field(default=5, gt=0)
    webhook_retention_days: float = Field(default=30, gt=0, le=36_500)
    webhook_deadline_seconds: float = Field(default=15, gt=0, le=30)
    webhook_poll_seconds: float = Field(default=1, gt=0)

    def outbound_pairs(self) -> frozenset[str]:
        """Returns the allow-listed `host:port` pairs."""
        return frozenset(pair for part in self.outbound_allow_list.split(",") if (pair := part.strip().lower()))

    @field_validator("s3_endpoint", "s3_public_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") if value else None

    @model_validator(mode="after")
    def _leases_outlive_heartbeats(self) -> Settings:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError("EGRPO_LEASE_SECONDS must be at least twice EGRPO_HEARTBEAT_SECONDS")
        return self


def load(kind: type[_S], **overrides: Any) -> _S:
    """Returns the settings of the environment.

    Raises:
        SettingsError: naming every variable that is missing or wrong, never its value.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        problems = [_problem(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise SettingsError("; ".join(problems)) from None


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> str:
    if not location:
        return message
    variable = _PREFIX + str(location[0]).upper()
    return f"{variable} is not set" if kind == "missing" else f"{variable}: {message}"
