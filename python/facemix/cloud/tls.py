"""The server's certificate, and that of those who may call."""

from __future__ import annotations

import ssl

import grpc

from .settings import Settings

__all__ = ["credentials"]


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """What to listen with; None for plain text.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is not what it must be. gRPC would say so in its own log, and refuse every client.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None

    def no_password() -> str:  # without this OpenSSL would ask at the terminal, and gRPC could not take the key
        raise ValueError(f"serve: --tls-key must be a key without a password, got {settings.tls_key}")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = settings.tls_cert.read_bytes(), settings.tls_key.read_bytes()
    authority = None if settings.client_ca is None else settings.client_ca.read_bytes()
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, no_password)
    except ssl.SSLError as error:
        raise ValueError(
            "serve: --tls-cert and --tls-key must be a PEM certificate, with its chain, and its key, "
            f"got {settings.tls_cert} and {settings.tls_key}: {error.reason or 'neither'}"
        ) from None
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except ssl.SSLError as error:
            raise ValueError(
                f"serve: --client-ca must hold PEM certificates, got {settings.client_ca}: {error.reason}"
            ) from None
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=authority is not None)
