"""Certificates: the server's, and those of its clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cloud_server import Doubler, code_of, message, repository, rows, run, stub_of
from cryptography.hazmat.primitives import serialization
from facemix.cloud.server import Server
from facemix.cloud.settings import Settings
from facemix.cloud.tls import credentials

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


class Authority:
    """A certificate authority, and what it issues, in files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._ca = folder, trustme.CA()
        self.pem = self._ca.cert_pem.bytes()
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.pem)

    def issue(self, name: str, common_name: str | None = None) -> tuple[Path, Path]:
        certificate = self._ca.issue_cert(name, common_name=common_name)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        key.write_bytes(certificate.private_key_pem.bytes())
        return cert, key


async def outcome(address: str, client: grpc.ChannelCredentials | None, count: int = 1) -> grpc.StatusCode:
    options = [("grpc.use_local_subchannel_pool", 1)]
    if client is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, client, options=options)
    async with channel:
        return await code_of(stub_of(channel).ModelInfer(message(rows(count)), timeout=20))


def test_clients_with_and_without_certificates(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    cert, key = authority.issue("127.0.0.1")
    models = repository([Doubler()], tmp_path)

    def client(ca: Authority, own: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
        chain, private = (own[0].read_bytes(), own[1].read_bytes()) if own else (None, None)
        return grpc.ssl_channel_credentials(ca.pem, private, chain)

    async def scenario() -> None:
        server = Server(Settings(model=(), tls_cert=cert, tls_key=key), models)
        await server.start()
        assert await outcome(server.address, client(authority)) == OK
        assert await outcome(server.address, client(other)) == UNAVAILABLE
        assert await outcome(server.address, None) == UNAVAILABLE
        await server.stop()

        mutual = Server(Settings(model=(), tls_cert=cert, tls_key=key, client_ca=authority.file, rate=1), models)
        await mutual.start()
        anna, bert = (client(authority, authority.issue(f"{n}.test", common_name=n)) for n in ("anna", "bert"))
        assert await outcome(mutual.address, anna, count=100) == OK
        assert await outcome(mutual.address, anna) == grpc.StatusCode.RESOURCE_EXHAUSTED  # rates go by certificate
        assert await outcome(mutual.address, bert) == OK
        assert await outcome(mutual.address, client(authority)) == UNAVAILABLE
        assert await outcome(mutual.address, client(authority, other.issue("anna.test"))) == UNAVAILABLE
        await mutual.stop()

    run(scenario())


def test_files_that_will_not_do(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    cert, _ = authority.issue("one.test")
    _, key = authority.issue("two.test")
    with pytest.raises(ValueError, match=r"--tls-cert and --tls-key must be a PEM certificate, .*MISMATCH"):
        credentials(Settings(model=(), tls_cert=cert, tls_key=key))
    with pytest.raises(FileNotFoundError):
        credentials(Settings(model=(), tls_cert=tmp_path / "none", tls_key=key))
    good = authority.issue("three.test")
    with pytest.raises(ValueError, match="--client-ca must hold PEM certificates, got"):
        credentials(Settings(model=(), tls_cert=good[0], tls_key=good[1], client_ca=good[1]))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path / "ours").issue("one.test")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ValueError, match=r"--tls-key must be a key without a password, got .*one\.test\.key"):
        credentials(Settings(model=(), tls_cert=cert, tls_key=key))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_certificate(host: str) -> None:
    assert credentials(Settings(model=(), host=host)) is None


@pytest.mark.parametrize(("host", "bracketed"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1")])
def test_addresses_with_colons_stand_in_brackets(host: str, bracketed: str) -> None:
    assert Settings(model=(), host=host).bracketed_host == bracketed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "10.0.0.1", "cloud.example", ""])
def test_elsewhere_plain_text_must_be_asked_for(host: str) -> None:
    with pytest.raises(ValueError, match="--host must be an address of loopback where there is no --tls-cert, unless"):
        Settings(model=(), host=host)
    assert credentials(Settings(model=(), host=host, insecure=True)) is None


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"tls_cert": Path("a")}, "--tls-cert and --tls-key must be given together"),
        ({"tls_key": Path("a")}, "--tls-cert and --tls-key must be given together"),
        ({"client_ca": Path("a")}, "--client-ca must come with --tls-cert"),
        ({"max_batch": 0}, "--max-batch must be between 1 and 65536, got 0"),
        ({"max_delay_ms": -1.0}, "--max-delay-ms must be between 0 and 10000, got -1.0"),
        ({"max_delay_ms": float("nan")}, "--max-delay-ms must be between 0 and 10000, got nan"),
        ({"queue_mib": 0}, "--queue-mib must be between 1 and"),
        ({"max_message_mib": 2048}, "--max-message-mib must be between 1 and 2047, got 2048"),
        ({"metrics_port": 65536}, "--metrics-port must be between 0 and 65535, got 65536"),
    ],
)
def test_options_that_will_not_do(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Settings(model=(), **options)
