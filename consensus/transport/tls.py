"""What went wrong with TLS, in words for a person.

The transport takes ready-made contexts; where their certificates come from is its user's business.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

_ALERTS: Final[Mapping[str, str]] = {
    "UNKNOWN_CA": "it does not trust the authority that signed this member's certificate",
    "BAD_CERTIFICATE": "it does not accept this member's certificate",
    "CERTIFICATE_EXPIRED": "it says that this member's certificate has expired",
    "CERTIFICATE_REQUIRED": "it wants a certificate, and this member has none",
}
"""What the other side may say before it ends a handshake (RFC 8446, section 6.2)."""

ENDED: Final = (
    "it ended the connection at once: it may not accept this member's certificate, or not speak TLS"
)
"""The other side may also say nothing."""


def tls_failure(error: Exception) -> str:
    """Say why no TLS connection came about; empty where TLS had no part in it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return ENDED
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS there"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it shows no certificate"
        _, _, alert = reason.partition("_ALERT_")
        return _ALERTS.get(alert) or f"TLS failed: {reason.lower().replace('_', ' ') or error}"
    if isinstance(error, (ConnectionResetError, asyncio.IncompleteReadError)):
        return ENDED
    return ""
