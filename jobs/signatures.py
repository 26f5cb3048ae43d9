"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric (HMAC-SHA256 over id, time and body)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

_PREFIX = "whsec_"
_SECRET_BYTES = 32  # The standard asks for 24 to 64.


def new_secret() -> str:
    """Returns a new secret, in the form that the standard's libraries take."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(signing_secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Returns what a receiver needs to verify a message.

    Args:
        signing_secrets: One, or two while the older of them is still accepted.
        message_id: The message's, the same for each time that it is sent.
        timestamp: When it is sent, seconds since 1970: receivers refuse what is far from now.
        body: The bytes that are sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(_hmac(secret, signed)).decode() for secret in signing_secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _hmac(secret: str, signed: bytes) -> bytes:
    return hmac.new(base64.b64decode(secret.removeprefix(_PREFIX)), signed, hashlib.sha256).digest()
