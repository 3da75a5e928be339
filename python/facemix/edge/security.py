"""Where the cloud is, and how the way there is protected. TLS guards the way; mixing is a separate matter."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

import grpc

__all__ = ["Address", "Security"]

HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
PEM = b"-----BEGIN "
TOKEN = re.compile(r"[!-~]+")  # what an HTTP header can hold, without blanks


@dataclass(frozen=True)
class Address:
    """Host and port of a server.

    Attributes:
        host: a name, or an IP address without brackets.
        port: 1 to 65535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address in "host:port", "127.0.0.1:port" or "[::1]:port".

        Raises:
            TypeError: if it is no text.
            ValueError: if it is no such address.
        """
        if not isinstance(text, str):
            raise TypeError(f"Client: server must be a text, got {type(text).__name__}")
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        good = colon and port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535
        if not good or not (_is_ipv6(host) if bracketed else HOST_NAME.fullmatch(host)):
            raise ValueError(f'Client: server must be "host:port" or "[IPv6]:port", got {text[:80]!r}')
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower().rstrip(".") == "localhost"

    @property
    def target(self) -> str:
        """For gRPC. Without the scheme it would take some host names ("unix") for one."""
        return f"dns:///{self}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Security:
    """TLS, except to this machine itself: there it is plain text, unless `ca` or `certificate` is given.

    Attributes:
        ca: certificates (PEM) of who may vouch for the server; default: those that gRPC trusts.
        certificate, key: of this client (PEM), for servers that want mutual TLS; both or none.
        token: sent with every call as "Bearer"; only over TLS, or to this machine.
        insecure: plain text to other machines. Whoever listens has what the cloud has.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Security: certificate and key must be given together, got one of them")
        for name in ("ca", "certificate", "key"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bytes):
                raise TypeError(f"Security: {name} must be bytes (PEM), got {type(value).__name__}")
            if value is not None and PEM not in value:
                raise ValueError(f"Security: {name} must be PEM, which has a line '{PEM.decode()}...', got none")
        if self.token is not None and not (isinstance(self.token, str) and TOKEN.fullmatch(self.token)):
            raise ValueError("Security: token must be printable ASCII without blanks, got something else")
        if self.insecure and (self.ca is not None or self.certificate is not None):
            raise ValueError("Security: insecure must not be set where ca or certificate is given")

    def credentials(self, address: Address) -> grpc.ChannelCredentials | None:
        """For a channel to `address`; None for plain text.

        Raises:
            ValueError: if the token would go over the network in plain text.
        """
        if self.insecure and not address.loopback and self.token is not None:
            raise ValueError("Security: a token must go over TLS or stay on this machine, got insecure=True")
        wanted = self.ca is not None or self.certificate is not None
        if not wanted and (address.loopback or self.insecure):
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
