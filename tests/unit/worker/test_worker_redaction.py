"""No secret gets through, and what is none stays readable."""

import json
from urllib.parse import quote

import pytest

from worker.protocol import ErrorEvent, LogEvent, PhaseEvent, ProgressEvent
from worker.redaction import REDACTED, Redactor

SECRETS = [
    "ega_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_has_the_shape_of_a_secret_is_taken_out_wherever_it_stands(secret: str) -> None:
    for text in (f"got {secret} back", f'{{"x":"{secret}"}}', f"https://host/?t={secret}&u=1"):
        redacted = Redactor()(text)
        assert secret not in redacted
        assert REDACTED in redacted
        assert redacted[:3] == text[:3]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("connecting to postgresql://egrpo:s3cr3t!@db:5432/egrpo", "s3cr3t!"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ("https://s3/x?X-Amz-Credential=me%2F2026&X-Amz-Signature=deadbeef00", "deadbeef00"),
        ("S3_SECRET_KEY=hunter2hunter2 and more", "hunter2hunter2"),
        ('api_key: "0123456789"', "0123456789"),
        ("PGPASSWORD=letmein", "letmein"),
    ],
)
def test_what_is_called_a_secret_is_taken_out(text: str, secret: str) -> None:
    redacted = Redactor()(text)
    assert secret not in redacted
    assert redacted.split(":")[0].split("=")[0] == text.split(":")[0].split("=")[0]


@pytest.mark.parametrize(
    "text",
    [
        "step 12: 77 tokens, loss=0.25, key frames: 3",
        "https://huggingface.co/black-forest-labs/FLUX.1-dev is gated",
        "the tokenizer of step-000012/state.safetensors, sha256:9f86d081884c7d65",
        "password: ",
        "a red circle: on a blue square",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor(["", "abc"])(text) == text


def test_what_the_worker_holds_is_known_to_the_letter() -> None:
    redact = Redactor(["correct-horse", "correct-horse-battery"])
    assert redact("x correct-horse-battery y correct-horse") == f"x {REDACTED} y {REDACTED}"


VALUE = 'c4"n\\är/y+value'


@pytest.mark.parametrize(
    "written",
    [VALUE, json.dumps(VALUE), json.dumps({"x": VALUE}, ensure_ascii=False), f"?t={quote(VALUE, safe='')}&x=1"],
)
def test_a_value_is_known_as_json_and_urls_write_it(written: str) -> None:
    redacted = Redactor().knowing([VALUE])(f"before {written} after")
    assert redacted.count(REDACTED) == 1
    assert "value" not in redacted
    assert (redacted[:6], redacted[-5:]) == ("before", "after")


def test_each_line_of_a_value_is_known_and_what_was_known_before() -> None:
    redact = Redactor(["correct-horse"]).knowing(["-----BEGIN\nfirst line of it\nabc"])
    assert redact("x first line of it y correct-horse abc") == f"x {REDACTED} y {REDACTED} abc"


def test_words_of_events_are_redacted_and_numbers_are_not_touched() -> None:
    redact = Redactor(["12345678"])
    assert redact.event(LogEvent(type="log", message="is 12345678")).model_dump()["message"] == f"is {REDACTED}"
    error = redact.event(ErrorEvent(type="error", code="12345678", message="12345678!")).model_dump()
    assert (error["code"], error["message"]) == (REDACTED, f"{REDACTED}!")
    assert redact.event(PhaseEvent(type="phase", phase="12345678")).model_dump()["phase"] == REDACTED
    progress = ProgressEvent(type="progress", step=12345678, total_steps=12345678)
    assert redact.event(progress) is progress
