"""What a server is told, and what it refuses to be told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]

MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """The options of `facemix serve`, by the same names; see its help.

    Raises:
        ValueError: for a value out of range, or options that do not go together.
    """

    model: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 0
    threads: int = 0
    device: str = "auto"
    compile: bool = False
    max_batch: int = 64
    max_delay_ms: float = 2.0
    queue_mib: int = 512
    max_message_mib: int = 16
    max_receiving: int = 256
    drain_seconds: float = 30.0
    reload_seconds: float = 5.0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None
    rate: int = 0
    insecure: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65535),
            ("threads", 0, 1024),
            ("max_batch", 1, 65536),
            ("max_delay_ms", 0, 10_000),
            ("queue_mib", 1, 1 << 20),
            ("max_message_mib", 1, 2047),
            ("max_receiving", 1, 65536),
            ("drain_seconds", 0, 86400),
            ("reload_seconds", 0, 86400),
            ("metrics_port", 0, 65535),
            ("rate", 0, 1 << 31),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"serve: --{name.replace('_', '-')} must be between {low} and {high}, got {value}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("serve: --tls-cert and --tls-key must be given together, got one of them")
        if self.client_ca is not None and self.tls_cert is None:
            raise ValueError("serve: --client-ca must come with --tls-cert, got none")
        if self.tls_cert is None and not self.insecure and not _loopback(self.host):
            raise ValueError(
                "serve: --host must be an address of loopback where there is no --tls-cert, unless --insecure asks "
                f"for plain text, got {self.host}"
            )

    @property
    def bracketed_host(self) -> str:
        """The host as it stands before a port."""
        return f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host

    @property
    def max_message_bytes(self) -> int:
        """Largest message."""
        return self.max_message_mib * MIB

    @property
    def queue_bytes(self) -> int:
        """Capacity of the queue."""
        return self.queue_mib * MIB


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
