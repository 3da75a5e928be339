"""What the cloud tells its operator, and what it never tells."""

from __future__ import annotations

import json
import logging
import re
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from cloud_process import Cloud
from cloud_server import message
from facemix.cloud.logs import Seldom, _Lines
from facemix.storage import load_tensors, save_tensors
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub

VALUE = 1234.5678


def test_metrics_and_logs_of_a_process(cloud_file: Path, tmp_path: Path) -> None:
    models, tokens = tmp_path / "models", tmp_path / "tokens"
    models.mkdir()
    tensors, config = load_tensors(cloud_file)
    save_tensors(models / "1.safetensors", tensors, config)
    tokens.write_text("anna s3cret\n")
    tokens.chmod(0o600)
    options = ("--tokens", str(tokens), "--metrics-port", "0", "--reload-seconds", "0.1", "--threads", "1")
    with Cloud("--model", str(models), *options) as cloud:
        with grpc.insecure_channel(cloud.address) as channel:
            infer = GRPCInferenceServiceStub(channel).ModelInfer
            anna = [("authorization", "Bearer s3cret")]
            good = message(np.full((3, 8, 8, 8), VALUE, np.float32))
            for _ in range(5):
                reply = infer(good, metadata=anna)
            bad = message(np.full((3, 8, 8, 8), VALUE, np.float32))
            bad.raw_input_contents[0] = np.full((3, 8, 8, 8), np.nan, np.float32).tobytes()
            for request, metadata in ((bad, anna), (bad, anna), (good, [("authorization", "Bearer s3cret-too")])):
                with pytest.raises(grpc.RpcError):
                    infer(request, metadata=metadata)
            save_tensors(models / "2.safetensors", tensors, {**config, "version": 2})
            cloud.until("reloaded")
        metrics = f"http://{cloud.log[0]['metrics']}/metrics"
        text = urllib.request.urlopen(metrics, timeout=10).read().decode()
        cloud.process.terminate()
        assert cloud.wait() == 0

    for line in (
        'facemix_requests_total{code="OK"} 5.0',
        'facemix_requests_total{code="INVALID_ARGUMENT"} 2.0',
        'facemix_refusals_total{reason="tensors"} 2.0',
        'facemix_refusals_total{reason="token"} 1.0',
        "facemix_request_seconds_count 7.0",
        "facemix_queue_seconds_count 5.0",
        "facemix_compute_seconds_count 5.0",
        'facemix_batch_rows_bucket{le="2.0"} 0.0',
        'facemix_batch_rows_bucket{le="4.0"} 5.0',
        "facemix_queue_requests 0.0",
        "facemix_queue_bytes 0.0",
        f"facemix_received_bytes_total {5 * good.ByteSize() + 2 * bad.ByteSize()}.0",
        *(f'facemix_model{{name="middle",network="{config["network"]}",version="{v}"}} 1.0' for v in (1, 2)),
    ):
        assert line in text.splitlines()
    sent = re.search(r"^facemix_sent_bytes_total (\S+)$", text, re.MULTILINE)
    assert sent is not None
    assert abs(float(sent[1]) / reply.ByteSize() - 5) < 0.1  # a count of nanoseconds may be a byte longer

    assert [line["event"] for line in cloud.log] == [
        "serving", "refused", "refused", "reloaded", "draining", "stopped",
    ]  # fmt: skip
    assert cloud.log[0]["models"] == ["middle 1"]
    assert cloud.log[0]["tls"] is False
    assert [line["reason"] for line in cloud.log[1:3]] == ["tensors", "token"]
    assert cloud.log[3]["models"] == ["middle 1", "middle 2"]
    everything = "".join(cloud.lines) + text
    for secret in ("s3cret", "anna", "1234", "nan,"):
        assert secret not in everything


def test_a_line_of_the_log() -> None:
    log = logging.getLogger("test")
    record = log.makeRecord(
        "test",
        logging.WARNING,
        "file",
        1,
        "reload %s",
        ("refused",),
        None,
        extra={"file": Path("a"), "error": "no\nway"},
    )
    line = json.loads(_Lines().format(record))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "warning", "event": "reload refused", "file": "a", "error": "no\nway"}


def test_of_an_exception_the_log_holds_the_type_only() -> None:
    try:
        raise ValueError(f"it held {VALUE}")
    except ValueError as error:
        record = logging.getLogger("test").makeRecord(
            "test", logging.ERROR, "file", 1, "failed", (), (type(error), error, error.__traceback__)
        )
    line = json.loads(_Lines().format(record))
    assert line["error"] == "ValueError"
    assert str(VALUE) not in json.dumps(line)


def test_strangers_cannot_fill_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("facemix.cloud.logs.time.monotonic", lambda: now)
    seldom = Seldom(logging.getLogger("test"))
    for _ in range(1000):
        seldom.warning("refused", "rate")
    seldom.warning("refused", "token")
    now += 11
    seldom.warning("refused", "rate")
    assert [(vars(r)["reason"], vars(r)["left_out"]) for r in caplog.records] == [
        ("rate", 0),
        ("token", 0),
        ("rate", 999),
    ]
