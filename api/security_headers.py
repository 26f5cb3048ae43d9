"""What every answer tells a browser: run nothing from it, frame it nowhere, keep no copy, tell nobody its address."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import Scope

_CDN = "https://cdn.jsdelivr.net"
_NO_FRAMES = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_NOTHING = f"default-src 'none'; {_NO_FRAMES}"
# The documentation page starts a script of the CDN by a script in the page, and asks this service for the document.
_DOCS_PAGE = (
    f"default-src 'none'; script-src {_CDN} 'unsafe-inline'; style-src {_CDN} 'unsafe-inline'; "
    f"img-src https://fastapi.tiangolo.com data:; connect-src 'self'; {_NO_FRAMES}"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ONE_YEAR = "max-age=31536000"


def add_security_headers(scope: Scope, headers: MutableHeaders) -> None:
    """Adds the headers to an answer; an endpoint that has a Cache-Control of its own keeps it."""
    headers.update(_ALWAYS)
    headers["Content-Security-Policy"] = _DOCS_PAGE if scope["path"] == "/docs" else _NOTHING
    headers.setdefault("Cache-Control", "no-store")
    if scope["scheme"] == "https":
        headers["Strict-Transport-Security"] = _ONE_YEAR
