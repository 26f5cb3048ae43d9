"""Takes secrets out of text that leaves the worker: a job's log and the reasons of its status.

Two nets. What this worker itself holds is known to the letter: its settings, the environment's variables whose names
say so, and the secrets that its job names, as they are and as JSON and URLs write them. What a trainer may have got
elsewhere is known by its shape.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from worker.protocol import ErrorEvent, LogEvent, PhaseEvent, TrainerEvent
from worker.settings import WorkerSettings
from worker.trainer import is_secret_name

REDACTED = "[redacted]"
# Shorter values are words: taking "test" out of every line would hide more than it protects.
_MIN_SECRET_CHARS = 6

_SHAPES = re.compile(
    r"""
    \bega_[A-Za-z0-9_-]{16,}                                # keys of this service
    | \bwhsec_[A-Za-z0-9+/=]{16,}                           # secrets of webhooks
    | \bhf_[A-Za-z0-9]{16,}                                 # Hugging Face
    | \b(?:ghp|gho|ghs|ghu|github_pat)_[A-Za-z0-9_]{20,}    # GitHub
    | \bsk-[A-Za-z0-9_-]{16,}                               # several model providers
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                         # AWS key ids
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*   # JSON web tokens
    | (?<=://)[^\s/:@]*:[^\s/@]+(?=@)                       # user:password@ of a URL
    | (?<=X-Amz-Signature=)[0-9A-Fa-f]+                     # what makes a signed link one
    | (?<=X-Amz-Credential=)[^&\s]+
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)?\s*)[^\s\"',}]+")
_ASSIGNED = re.compile(
    r"(?i)\b([a-z0-9_.-]*(?:api[_-]?key|secret(?:[_-]?key)?|password|passwd|access[_-]?token|auth[_-]?token)"
    r"[\"']?\s*[=:]\s*[\"']?)(?!\s)[^\s\"',;&}]{4,}"
)


class Redactor:
    """Replaces secrets. Safe to share between threads."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepares the nets.

        Args:
            secrets: Values that must not be seen; short ones are passed over.
        """
        self._values = frozenset(secrets)
        # The longest first: one value may begin like another.
        known = sorted({form for value in self._values for form in _forms(value)}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def of(cls, settings: WorkerSettings, environ: Mapping[str, str]) -> Self:
        """Returns the redactor of a worker: its settings' secrets, and those of its environment."""
        secrets = {settings.s3_secret_key.get_secret_value(), settings.s3_access_key, *settings.sealing_keys()}
        for url in (settings.database_url, settings.broker_url):
            password = urlsplit(url).password
            secrets |= {password, unquote(password)} if password else set()
        return cls(secrets | {value for name, value in environ.items() if is_secret_name(name)})

    def knowing(self, secrets: Iterable[str]) -> "Redactor":
        """Returns one that knows these values as well."""
        return Redactor(self._values.union(secrets))

    def event(self, event: TrainerEvent) -> TrainerEvent:
        """Returns the event without the secrets, as far as it is words."""
        if isinstance(event, LogEvent):
            return event.model_copy(update={"message": self(event.message)})
        if isinstance(event, ErrorEvent):
            return event.model_copy(update={"code": self(event.code), "message": self(event.message)})
        if isinstance(event, PhaseEvent):
            return event.model_copy(update={"phase": self(event.phase)})
        return event

    def __call__(self, text: str) -> str:
        """Returns the text without the secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        text = _SHAPES.sub(REDACTED, text)
        return _ASSIGNED.sub(rf"\1{REDACTED}", _HEADER.sub(rf"\1{REDACTED}", text))


def _forms(value: str) -> set[str]:
    """Returns how a value may be written: whole, each of its lines, and those in JSON and in a URL."""
    parts = {part for part in (value, *map(str.strip, value.splitlines())) if len(part) >= _MIN_SECRET_CHARS}
    in_json = {json.dumps(part, ensure_ascii=is_ascii)[1:-1] for part in parts for is_ascii in (True, False)}
    return parts | in_json | {quote(part, safe="") for part in parts}
