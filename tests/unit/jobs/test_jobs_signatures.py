"""Signatures of webhooks, verified by the library that the standard publishes, and by the client's."""

import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from egrpo_client.errors import WebhookError
from egrpo_client.webhooks import verify
from jobs import signatures

BODY = json.dumps({"type": "job.succeeded", "data": {"name": "ein grüner Kreis"}}).encode()


def test_the_published_verifier_accepts_ours_with_either_secret_of_a_rotation() -> None:
    new, old = signatures.new_secret(), signatures.new_secret()
    headers = signatures.headers([new, old], "msg_1", int(time.time()), BODY)
    for secret in (new, old):
        assert Webhook(secret).verify(BODY, headers) == verify(BODY, headers, secret) == json.loads(BODY)


@pytest.mark.parametrize(
    "change", [{"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(time.time()) - 3600)}, {"body": BODY + b" "}]
)
def test_what_was_changed_on_the_way_is_refused(change: dict[str, str | bytes]) -> None:
    secret = signatures.new_secret()
    headers = signatures.headers([secret], "msg_1", int(time.time()), BODY)
    body = change.pop("body", BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, {**headers, **{name: str(value) for name, value in change.items()}})
    with pytest.raises(WebhookError):
        verify(body, {**headers, **{name: str(value) for name, value in change.items()}}, secret)


def test_another_secret_is_refused() -> None:
    headers = signatures.headers([signatures.new_secret()], "msg_1", int(time.time()), BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(signatures.new_secret()).verify(BODY, headers)
