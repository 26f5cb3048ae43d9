"""Whether a webhook comes from the service (Standard Webhooks 1.0.0, symmetric signatures).

    event = verify(request.body, request.headers, secret)

The signature is over the bytes as they arrived: verify before the body is parsed, and never a body that was parsed and
written again.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from egrpo_client.errors import WebhookError

# The specification leaves the number to us; its reference libraries take five minutes, too.
TOLERANCE_S = 300.0
_PREFIX = "whsec_"


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> Any:
    """Returns the body of a webhook that the service has signed, as JSON.

    Args:
        body: the request's body, unchanged.
        headers: the request's headers; their case does not matter.
        secret: the endpoint's `whsec_…`, or several while one takes the place of another.
        tolerance_s: how far the webhook's time may be from now, so that an old one cannot be sent again.
        now_s: seconds since 1970; the clock's if left out.

    Raises:
        WebhookError: a header is missing, the time is too far away, or no signature is right.
    """
    sent = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (_header(sent, name) for name in ("id", "timestamp", "signature"))
    _check_time(timestamp, time.time() if now_s is None else now_s, tolerance_s)
    raw = body.encode() if isinstance(body, str) else body
    signed = f"{message_id}.{timestamp}.".encode() + raw
    secrets = [secret] if isinstance(secret, str) else secret
    expected = [hmac.new(_key(each), signed, hashlib.sha256).digest() for each in secrets]
    # Every pair is compared, however early one fits: the time taken tells nothing.
    matches = [hmac.compare_digest(right, given) for given in _signatures(signatures) for right in expected]
    if not any(matches):
        raise WebhookError(
            "No signature of the webhook is right: it is not from the service, or the secret is another."
        )
    try:
        return json.loads(raw)
    except ValueError as error:
        raise WebhookError("The webhook is signed and its body is no JSON.") from error


def _header(sent: Mapping[str, str], name: str) -> str:
    value = sent.get(f"webhook-{name}", "")
    if not value:
        raise WebhookError(f"The header webhook-{name} is missing.")
    return value


def _check_time(timestamp: str, now_s: float, tolerance_s: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise WebhookError("The header webhook-timestamp is no number of seconds.")
    age_s = now_s - int(timestamp)
    if abs(age_s) > tolerance_s:
        side = "old" if age_s > 0 else "far in the future"
        raise WebhookError(f"The webhook is too {side}: {abs(age_s):.0f} seconds, {tolerance_s:.0f} are allowed.")


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise WebhookError("The secret is not one of the service: they read whsec_ and Base64.") from error


def _signatures(header: str) -> list[bytes]:
    """Returns the signatures of version 1; others are not ours to judge."""
    found = []
    for part in header.split(" "):
        version, _, text = part.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(text, validate=True))
            except binascii.Error:
                continue
    return found
