"""TLS on both sides: what PS3.15 annex B (BCP 195) asks for is what Python's defaults give, from TLS 1.2 on."""

from __future__ import annotations

import ssl

from msloc_edge.errors import ListenError
from msloc_edge.listen.config import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """Make the context of the receiving side; with `ca` a caller has to show a certificate that comes from it.

    Raises ListenError (config_invalid) for files that do not load.
    """
    context = _context(tls, ssl.Purpose.CLIENT_AUTH)
    if tls.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """Make the context of the sending side, which holds the node's name against its certificate.

    Raises ListenError (config_invalid) for files that do not load.
    """
    return _context(tls, ssl.Purpose.SERVER_AUTH)


def _context(tls: Tls, purpose: ssl.Purpose) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(purpose, cafile=tls.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (tls.cert, tls.key, tls.ca)))
        raise ListenError("config_invalid", f"{files}: expected certificates and a key in PEM ({error})") from error
    return context


def _no_password() -> str:
    """Answer for a locked key; OpenSSL would ask at the terminal."""
    return ""
