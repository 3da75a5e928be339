"""Who may call the cloud, and how much."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import grpc
import pytest
from cloud_server import Doubler, code_of, message, repository, rows, run, serving, stub_of, until
from facemix.cloud import access
from facemix.cloud.access import RateLimit, Tokens
from facemix.cloud.refusal import Refusal
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import RETRY_AFTER
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

DENIED, OK = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK


def token_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.chmod(mode)
    return path


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def test_a_token_opens_everything_and_nothing_else_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = token_file(tmp_path / "tokens", "# clients\n\nanna s3cret-a\nbert  s3cret-b\n")
    (tmp_path / "models").mkdir()

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path / "models"), tokens=tokens) as (server, channel):
            stub = stub_of(channel)
            infer = message(rows(1))
            for metadata in (
                None,
                bearer("s3cret-c"),
                bearer(""),
                bearer("s3cret-a s3cret-b"),
                [("authorization", "s3cret-a")],
                [("authorization", "Basic s3cret-a")],
                [("token", "s3cret-a")],
                [("authorization-bin", b"Bearer s3cret-a")],
            ):
                assert await code_of(stub.ModelInfer(infer, metadata=metadata)) == DENIED
            for call in (
                stub.ServerReady(pb.ServerReadyRequest()),
                stub.ServerMetadata(pb.ServerMetadataRequest()),
                stub.ModelReady(pb.ModelReadyRequest(name="middle")),
                stub.ModelMetadata(pb.ModelMetadataRequest(name="middle")),
            ):
                assert await code_of(call) == DENIED
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            listed = reflection.ServerReflectionInfo()  # asks nothing: a message sent after the refusal is INTERNAL
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listed.read()
            assert caught.value.code() == DENIED

            assert (await stub.ServerLive(pb.ServerLiveRequest())).live
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            for token in ("s3cret-a", "s3cret-b"):
                assert await code_of(stub.ModelInfer(infer, metadata=bearer(token))) == OK

            token_file(tokens, "carl s3cret-c-new\n")  # who is deleted is out, without a restart
            server._tokens.refresh()
            assert await code_of(stub.ModelInfer(infer, metadata=bearer("s3cret-a"))) == DENIED
            assert await code_of(stub.ModelInfer(infer, metadata=bearer("s3cret-c-new"))) == OK

    run(scenario())
    assert "s3cret" not in caplog.text
    assert not any("s3cret" in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("text", "mode", "rule"),
    [
        ("anna one\n", 0o604, r"--tokens must not be readable by others \(chmod o-r\), got .*tokens"),
        ("anna one two\n", 0o600, "--tokens must have lines `NAME TOKEN` with a name each, got another in line 1 of"),
        ("anna \udc89one\n", 0o600, "got another in line 1 of"),
        ("\nanna\n", 0o600, "got another in line 2 of"),
        ("anna one\nanna two\n", 0o600, "got another in line 2 of"),
        ("# nobody\n", 0o600, "--tokens must name a client, got none"),
    ],
)
def test_token_files_that_will_not_do(tmp_path: Path, text: str, mode: int, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        Tokens(token_file(tmp_path / "tokens", text, mode))
    assert "one" not in str(caught.value).replace("none", "")


@pytest.mark.parametrize(
    ("text", "mode"),
    [("bert two\n", 0o644), ("bert two\ncarl three\ncarl\n", 0o600), ("bert four\nbert two\ncarl three\n", 0o600)],
)
def test_a_bad_token_file_puts_out_whom_it_does_not_list_and_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, mode: int
) -> None:
    path = token_file(tmp_path / "tokens", "anna one\nbert two\n")
    tokens = Tokens(path)
    token_file(path, text, mode)
    for _ in range(3):
        tokens.refresh()
    assert [tokens.client(token) for token in ("one", "two", "three", "four")] == [None, "bert", None, None]
    (record,) = caplog.records
    assert (record.message, vars(record)["clients"]) == ("tokens refused", 1)
    token_file(path, "bert two\ncarl three\n")
    tokens.refresh()
    assert [tokens.client(token) for token in ("one", "two", "three")] == [None, "bert", "carl"]


def test_a_token_file_is_read_again_where_its_text_is_not_what_changed(tmp_path: Path) -> None:
    """But who may read it; or which file it is, of the same age and size."""
    path = token_file(tmp_path / "tokens", "anna one\n")
    tokens = Tokens(path)
    token_file(path, "bert two\n", 0o604)
    tokens.refresh()
    assert tokens.client("two") is None
    path.chmod(0o600)
    tokens.refresh()
    assert tokens.client("two") == "bert"
    other, age = token_file(tmp_path / "other", "anna one\n"), path.stat().st_mtime_ns
    os.utime(other, ns=(age, age))
    other.replace(path)
    tokens.refresh()
    assert (tokens.client("one"), tokens.client("two")) == ("anna", None)


def test_who_was_the_only_client_can_be_put_out(tmp_path: Path) -> None:
    path = token_file(tmp_path / "tokens", "anna one\n")
    tokens = Tokens(path)
    token_file(path, "# anna's device was stolen\n")
    tokens.refresh()
    assert tokens.client("one") is None


def test_a_token_file_that_is_gone_lets_nobody_in_from_the_second_look_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = token_file(tmp_path / "tokens", "anna one\n")
    tokens = Tokens(path)
    for _ in range(2):
        path.unlink()
        tokens.refresh()
        assert tokens.client("one") == "anna"  # it may be being replaced
        token_file(path, "anna one\n")
        tokens.refresh()
        assert tokens.client("one") == "anna"
    path.unlink()
    caplog.clear()
    for _ in range(4):
        tokens.refresh()
    assert tokens.client("one") is None
    assert [vars(record)["clients"] for record in caplog.records] == [1, 0]
    path.mkdir()  # nor is this one that can be read
    tokens.refresh()
    assert tokens.client("one") is None
    path.rmdir()
    token_file(path, "anna one\n")
    tokens.refresh()
    assert tokens.client("one") == "anna"


def test_every_token_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether and where one matches must not show in the time it takes."""
    tokens = Tokens(token_file(tmp_path / "tokens", "anna one\nbert two\ncarl three\n"))
    compared = []
    original = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append(len(a)) or original(a, b))
    for token, name in (("one", "anna"), ("three", "carl"), ("four", None), ("", None)):
        compared.clear()
        assert tokens.client(token) == name
        assert compared == [32, 32, 32]


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_rate_is_a_balance_for_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(access, "time", clock)
    rates = RateLimit(4)
    rates.take("anna", 39)
    rates.take("anna", 11)  # 40 may be sent at once; this goes 10 into debt
    with pytest.raises(Refusal, match="a client must send 4 rows a second at most") as caught:
        rates.take("anna", 1)
    assert (caught.value.code, caught.value.retry_ms) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 2501)
    rates.take("bert", 40)
    clock.now += 2.4
    with pytest.raises(Refusal):
        rates.take("anna", 1)
    clock.now += 0.2
    rates.take("anna", 1)
    clock.now += 1e6
    rates.take("anna", 40)
    with pytest.raises(Refusal):
        rates.take("anna", 1)


def test_clients_that_are_remembered_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_CLIENTS", 2)
    rates = RateLimit(1)
    for client in ("a", "b", "c"):
        rates.take(client, 100)
    with pytest.raises(Refusal):
        rates.take("c", 1)
    with pytest.raises(Refusal):
        rates.take("b", 1)
    rates.take("a", 1)  # forgotten, as the one that was quiet longest


def test_rates_are_by_token(tmp_path: Path) -> None:
    tokens = token_file(tmp_path / "tokens", "anna a\nbert b\n")
    (tmp_path / "models").mkdir()

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path / "models"), tokens=tokens, rate=1) as (_, channel):
            stub = stub_of(channel)
            await stub.ModelInfer(message(rows(1000)), metadata=bearer("a"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(message(rows(1)), metadata=bearer("a"))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert 900_000 < int(dict(caught.value.trailing_metadata())[RETRY_AFTER]) <= 990_001
            await stub.ModelInfer(message(rows(1)), metadata=bearer("b"))

    run(scenario())


def test_what_the_queue_refused_is_not_in_the_rate(tmp_path: Path) -> None:
    tokens = token_file(tmp_path / "tokens", "anna a\nbert b\n")
    (tmp_path / "models").mkdir()

    async def scenario() -> None:
        model, large = Doubler(), message(rows(15_000))  # with their answers two are more than 1 MiB
        model.gate.clear()
        models = repository([model], tmp_path / "models")
        async with serving(models, tokens=tokens, rate=1, queue_mib=1) as (_, channel):
            stub = stub_of(channel)
            held = asyncio.ensure_future(stub.ModelInfer(large, metadata=bearer("a")))
            await until(model.started)
            with pytest.raises(grpc.aio.AioRpcError, match="the queue must hold"):
                await stub.ModelInfer(large, metadata=bearer("b"))
            model.gate.set()
            await held
            await stub.ModelInfer(large, metadata=bearer("b"))

    run(scenario())


def test_rates_without_tokens_are_by_address_whatever_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path), rate=1) as (server, channel):
            await stub_of(channel).ModelInfer(message(rows(100)))
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(server.address, options=options) as other:
                assert await code_of(stub_of(other).ModelInfer(message(rows(1)))) == grpc.StatusCode.RESOURCE_EXHAUSTED

    run(scenario())
