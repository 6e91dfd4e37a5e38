"""A server's certificate, taken as it is shown, for clients that do not want it verified.

gRPC verifies always. So the server is asked for its certificate first, and that one is trusted, for
the name that is in it. Whoever sits in between is not noticed: that is what not verifying means.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any


async def shown_certificate(
    host: str, port: int, cert_file: str | None, key_file: str | None
) -> tuple[bytes, str]:
    """Return the certificate (PEM) that a server shows, and a name that it is made out to.

    Args:
        cert_file, key_file: the client's own, for a server that asks for them; None: none.

    Raises:
        OSError: nobody answers there, it is not TLS, or the certificate has expired, which gRPC
            never takes.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    der = await _certificate(host, port, context, binary=True)
    pem = ssl.DER_cert_to_PEM_cert(der)
    # What is in a certificate is told of a verified one only.
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem)
    return pem.encode(), _name_in(await _certificate(host, port, context, binary=False))


async def _certificate(host: str, port: int, context: ssl.SSLContext, *, binary: bool) -> Any:
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary)
    finally:
        writer.close()


def _name_in(certificate: dict[str, Any]) -> str:
    """Return a host name or address that the certificate is good for."""
    for _, name in certificate.get("subjectAltName", ()):
        return str(name).replace("*", "any")
    for ((kind, name),) in certificate.get("subject", ()):
        if kind == "commonName":
            return str(name)
    return ""
