"""Addresses, TLS and tokens: what may go where, and what servers make of it."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
import trustme
from edge_halves import WatchedHalf, images
from facemix.edge import Client, CloudDenied, CloudUnreachable, Security
from facemix.edge.security import Address
from fake_cloud import Context, FakeCloud, running

PICTURES = images(8)
PEM = b"-----BEGIN x"
AWAY = Address("cloud.example", 443)
HERE = Address("127.0.0.1", 443)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("localhost:1", "localhost", 1, True),
        ("LOCALHOST.:1", "LOCALHOST.", 1, True),
        ("127.0.0.1:50051", "127.0.0.1", 50051, True),
        ("127.9.9.9:65535", "127.9.9.9", 65535, True),
        ("[::1]:443", "::1", 443, True),
        ("[2001:db8::2]:443", "2001:db8::2", 443, False),
        ("cloud.example:443", "cloud.example", 443, False),
        ("my_host-2:8001", "my_host-2", 8001, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("localhost.example:80", "localhost.example", 80, False),
        ("unix:80", "unix", 80, False),  # a host's name, not gRPC's scheme
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert str(address) == text
    assert address.target == f"dns:///{text}"


@pytest.mark.parametrize(
    "text",
    [
        "", "cloud", ":443", "cloud:", "cloud:0", "cloud:65536", "cloud:443x", "cloud:-1", "cloud: 443", "cloud:٤٤",
        "::1:443", "[::1]", "[::1]443", "[cloud]:443", "[127.0.0.1]:443", "http://cloud:443", "dns:///cloud:443",
        "unix:/run/cloud:1", "a b:443", "-a:443", "cloud/x:443", "a..b:443", "user@cloud:443", "cloud:443\n", "a\n:443",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r'Client: server must be "host:port"'):
        Address.parse(text)


def test_tls_is_the_default_away_from_here() -> None:
    assert isinstance(Security().credentials(AWAY), grpc.ChannelCredentials)
    assert isinstance(Security(ca=PEM).credentials(HERE), grpc.ChannelCredentials)
    assert isinstance(Security(certificate=PEM, key=PEM).credentials(HERE), grpc.ChannelCredentials)
    assert Security().credentials(HERE) is None
    assert Security(token="t").credentials(HERE) is None
    assert Security(insecure=True).credentials(AWAY) is None


def test_a_token_never_goes_over_the_network_in_plain_text() -> None:
    security = Security(token="t", insecure=True)
    assert security.credentials(HERE) is None
    for refused in (lambda: security.credentials(AWAY), lambda: Client(WatchedHalf(), str(AWAY), security=security)):
        with pytest.raises(ValueError, match="a token must go over TLS or stay on this machine"):
            refused()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"certificate": PEM}, ValueError, "certificate and key must be given together"),
        ({"key": PEM}, ValueError, "certificate and key must be given together"),
        ({"ca": "file.pem"}, TypeError, r"ca must be bytes \(PEM\), got str"),
        ({"ca": b"x"}, ValueError, "ca must be PEM, which has a line '-----BEGIN ...', got none"),
        ({"certificate": PEM, "key": b"x"}, ValueError, "key must be PEM, which has a line '-----BEGIN ...', got none"),
        ({"token": "a b"}, ValueError, "token must be printable ASCII without blanks"),
        ({"token": "a\n"}, ValueError, "token must be"),
        ({"token": ""}, ValueError, "token must be"),
        ({"token": b"x"}, ValueError, "token must be"),
        ({"ca": PEM, "insecure": True}, ValueError, "insecure must not be set where ca or certificate is given"),
        ({"certificate": PEM, "key": PEM, "insecure": True}, ValueError, "insecure must not be set where ca or cert"),
    ],
)
def test_bad_security(options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        Security(**options)  # type: ignore[arg-type]
    assert "a b" not in str(caught.value)


@pytest.mark.parametrize("broken", ["ca", "certificate"])
def test_files_that_cannot_be_read(broken: str, half: WatchedHalf, cloud: FakeCloud, tls: str) -> None:
    """PEM around what is none. It is not tried again."""
    garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    options = {"ca": garbage} if broken == "ca" else {"certificate": garbage, "key": garbage}
    with (
        Client(half, tls, security=Security(**options), timeout=20) as client,
        pytest.raises(CloudDenied, match="ca, certificate and key must be PEM that can be read"),
    ):
        client.classify(PICTURES)
    assert cloud.requests == []


def test_secrets_do_not_show() -> None:
    security = Security(ca=PEM, certificate=PEM, key=PEM + b"SECRET-KEY", token="SECRET-TOKEN")
    assert "SECRET" not in repr(security) + str(security)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1", "localhost")


def pem(leaf: trustme.LeafCert) -> tuple[bytes, bytes]:
    return leaf.private_key_pem.bytes(), b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


@pytest.fixture
def tls(cloud: FakeCloud, certificate: trustme.LeafCert) -> Iterator[str]:
    with running(cloud, grpc.ssl_server_credentials([pem(certificate)])) as server:
        yield server.address


def test_tls(tls: str, authority: trustme.CA, half: WatchedHalf, cloud: FakeCloud) -> None:
    security = Security(ca=authority.cert_pem.bytes(), token="open-sesame")
    with Client(half, tls, security=security) as client:
        assert len(client.classify(PICTURES)) == 8
    assert cloud.headers["authorization"] == "Bearer open-sesame"
    with Client(half, tls.replace("127.0.0.1", "localhost"), security=security) as client:
        assert len(client.classify(PICTURES)) == 8


def test_servers_that_nobody_vouches_for(tls: str, half: WatchedHalf, cloud: FakeCloud) -> None:
    other = Security(ca=trustme.CA().cert_pem.bytes(), token="t")
    with Client(half, tls, security=other) as client, pytest.raises(CloudDenied, match=r"certificate of .* must hold"):
        client.classify(PICTURES)
    assert not half.keys
    assert not cloud.described


def test_a_certificate_for_another_name(cloud: FakeCloud, authority: trustme.CA, half: WatchedHalf) -> None:
    credentials = grpc.ssl_server_credentials([pem(authority.issue_cert("cloud.example"))])
    security = Security(ca=authority.cert_pem.bytes())
    with (
        running(cloud, credentials) as server,
        Client(half, server.address, security=security) as client,
        pytest.raises(CloudDenied, match=r"certificate of .* must hold"),
    ):
        client.classify(PICTURES)
    assert not half.keys


def test_plain_text_to_a_server_that_wants_tls(tls: str, half: WatchedHalf) -> None:
    with Client(half, tls, attempts=1) as client, pytest.raises(CloudUnreachable):
        client.classify(PICTURES)
    assert not half.keys


def test_mutual_tls(cloud: FakeCloud, authority: trustme.CA, certificate: trustme.LeafCert, half: WatchedHalf) -> None:
    root = authority.cert_pem.bytes()
    credentials = grpc.ssl_server_credentials([pem(certificate)], root, require_client_auth=True)
    key, chain = pem(authority.issue_cert("edge.example"))
    with running(cloud, credentials) as server:
        with Client(half, server.address, security=Security(ca=root, certificate=chain, key=key)) as client:
            assert len(client.classify(PICTURES)) == 8
        stranger, theirs = pem(trustme.CA().issue_cert("edge.example"))
        for security in (Security(ca=root), Security(ca=root, certificate=theirs, key=stranger)):
            with Client(half, server.address, security=security, attempts=1) as client, pytest.raises(CloudUnreachable):
                client.classify(PICTURES)
    assert len(half.keys) == 1


def test_a_server_that_wants_another_token(cloud: FakeCloud, half: WatchedHalf) -> None:
    async def guard(cloud: FakeCloud, number: int, request: object, context: Context) -> None:
        if dict(context.invocation_metadata()).get("authorization") != "Bearer right":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

    cloud.behave = guard
    with running(cloud) as server:
        for token in (None, "wrong"):
            with (
                Client(half, server.address, security=Security(token=token)) as client,
                pytest.raises(CloudDenied, match="does not accept the credentials") as caught,
            ):
                client.classify(PICTURES)
            assert "wrong" not in str(caught.value)
        with Client(half, server.address, security=Security(token="right")) as client:
            assert len(client.classify(PICTURES)) == 8
    assert len(half.keys) == 3


def test_a_proxy_of_the_environment_does_not_see_what_stays_here(
    cloud: FakeCloud, half: WatchedHalf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running(cloud) as server, Client(half, server.address, attempts=1) as client:
        assert len(client.classify(PICTURES)) == 8
