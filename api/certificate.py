"""The certificate of the listeners that speak TLS."""

from __future__ import annotations

import ssl

from engine.config import LISTENERS, Settings, Tls
from engine.errors import Finding, InvalidDocument


def server_context(tls: Tls) -> ssl.SSLContext:
    """What a TLS listener needs; InvalidDocument names the setting whose file cannot be used."""
    for setting, path in (("tls.certificate", tls.certificate), ("tls.key", tls.key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise InvalidDocument([Finding(setting, f"cannot read {path}: {error.strerror}")]) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        reason = f"{tls.certificate} and {tls.key} are no PEM certificate with its key: {error}"
        raise InvalidDocument([Finding("tls", reason)]) from error
    return context


def asking_context(tls: Tls) -> ssl.SSLContext:
    """As `server_context`, for a listener that asks clients for a certificate of theirs, whoever issued it."""
    server_context(tls)
    # Here, because its library takes a while to load, and most servers open no such listener.
    from api.transports.client_certificates import AskingContext

    return AskingContext(tls.certificate, tls.key)


def check_certificate(settings: Settings) -> None:
    """InvalidDocument if a listener is to speak TLS and the files do not hold."""
    if any(LISTENERS[key].tls for key in settings.listeners):
        server_context(settings.tls)
