"""Webhooks: what the specification's own library signs is taken, and nothing else."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from egrpo_client.errors import WebhookError
from egrpo_client.webhooks import verify

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
BODY = json.dumps({"type": "job.succeeded", "data": {"id": "job_1"}, "name": "ä"})
NOW = 1_700_000_000


def signed(secret: str = SECRET, *, at: int = NOW, body: str = BODY) -> dict[str, str]:
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body)
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "Webhook-Signature": signature}


def test_what_the_reference_signs_is_taken() -> None:
    assert verify(BODY.encode(), signed(), SECRET, now_s=NOW) == json.loads(BODY)
    assert verify(BODY, signed(), SECRET, now_s=NOW + 299)["type"] == "job.succeeded"


def test_one_right_signature_of_several_is_enough_and_so_is_one_right_secret() -> None:
    headers = signed()
    both = {
        **headers,
        "Webhook-Signature": f"v1a,xxxx {signed(OTHER)['Webhook-Signature']} {headers['Webhook-Signature']}",
    }
    assert verify(BODY, both, SECRET, now_s=NOW)
    assert verify(BODY, headers, [OTHER, SECRET], now_s=NOW)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Webhook-Id": "msg_2"}, "No signature"),
        ({"Webhook-Timestamp": str(NOW + 1)}, "No signature"),
        ({"Webhook-Signature": "v1,AAAA"}, "No signature"),
        ({"Webhook-Signature": "v1,%%% v1"}, "No signature"),
        ({"Webhook-Signature": signed(OTHER)["Webhook-Signature"]}, "No signature"),
        ({"Webhook-Signature": signed()["Webhook-Signature"].replace("v1,", "v2,")}, "No signature"),
        ({"Webhook-Id": ""}, "webhook-id is missing"),
        ({"Webhook-Timestamp": "yesterday"}, "no number"),
        (signed(at=NOW - 301), "too old: 301 seconds, 300 are allowed"),
        (signed(at=NOW + 301), "too far in the future"),
    ],
)
def test_anything_else_is_not(changes: dict[str, str], said: str) -> None:
    with pytest.raises(WebhookError, match=said):
        verify(BODY, {**signed(), **changes}, SECRET, now_s=NOW)


def test_a_body_that_was_changed_or_is_no_json_is_not() -> None:
    with pytest.raises(WebhookError, match="No signature"):
        verify(BODY + " ", signed(), SECRET, now_s=NOW)
    with pytest.raises(WebhookError, match="no JSON"):
        verify("hello", signed(body="hello"), SECRET, now_s=NOW)


def test_a_secret_that_is_none_says_so() -> None:
    with pytest.raises(WebhookError, match="whsec_ and Base64"):
        verify(BODY, signed(), "not a secret!", now_s=NOW)
