"""The demo's page without a browser: what its server answers, and refuses."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facemix.cli import main
from facemix.data import channels_last
from facemix.demo.settings import DemoSettings
from facemix.demo.web.words import HONESTY
from PIL import Image
from web_page import Page, running_page

WISH = {"faces": [0, 5, 9], "network": "mixed", "wire_dtype": "float32"}
SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with running_page(tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture
def ask(page: Page) -> Callable[..., http.client.HTTPResponse]:
    """Sends a request with exactly the headers given, and a Host that is right unless there is another."""
    host = page.url.split("/")[2]

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, **headers}.items():
            if value:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        return connection.getresponse()

    return ask


@pytest.fixture
def send(ask: Callable[..., http.client.HTTPResponse]) -> Callable[..., list[dict[str, Any]]]:
    """Sends faces through the cloud, and returns what happened."""

    def send(**wish: Any) -> list[dict[str, Any]]:
        reply = _post(ask, json.dumps({**WISH, **wish}).encode())
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-ndjson")
        return [json.loads(line) for line in reply]

    return send


def _post(ask: Callable[..., http.client.HTTPResponse], body: bytes, **headers: str) -> http.client.HTTPResponse:
    usual = {"Content_Type": "application/json", "Content_Length": str(len(body))}
    return ask("POST", "/api/send", body, **{**usual, **headers})


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")],
)
def test_the_page_needs_nobody_else(ask: Callable[..., Any], path: str, kind: str) -> None:
    reply = ask("GET", path)
    assert (reply.status, reply.headers.get_content_type()) == (200, kind)
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    text = reply.read().decode()
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    for claim in ("encrypt", "secure", "innerHTML", "style="):
        assert claim not in text


def test_every_static_file_is_served() -> None:
    names = {path.name for path in (files("facemix.demo.web") / "static").iterdir()}
    assert names == {"index.html", "page.css", "page.js", "icon.svg"}


def test_what_the_page_is_told(ask: Callable[..., Any], page: Page) -> None:
    told = json.load(ask("GET", "/api/page"))
    assert told == {
        "people": page.faces[1].identity.tolist(),
        "most": 20,
        "group_size": 4,
        "image_shape": [32, 32, 1],
        "networks": ["mixed", "baseline"],
        "wire_dtypes": list(SIZES),
        "honesty": HONESTY,
    }
    assert json.load(ask("GET", "/api/cloud")) == {"running": True, "pid": page.cloud.state["pid"]}


def test_photographs(ask: Callable[..., Any], page: Page) -> None:
    for name, faces in zip(("train", "test"), page.faces, strict=True):
        for row in (0, len(faces) - 1):
            with Image.open(io.BytesIO(ask("GET", f"/photographs/{name}/{row}.png").read())) as image:
                assert image.format == "PNG"
                assert np.array_equal(np.asarray(image), channels_last(faces.images)[row, :, :, 0])


@pytest.mark.parametrize(
    "path",
    [
        "/photographs/test/24.png",
        "/photographs/other/0.png",
        "/photographs/test/-1.png",
        "/../page.js",
        "/static/page.js",
        "/page.js?x",
        "/api/send",
        "*",
    ],
)
def test_no_such_page(ask: Callable[..., Any], path: str) -> None:
    reply = ask("GET", path)
    assert (reply.status, json.load(reply)) == (404, {"error": "no such page"})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "faces.example"},
        {"Host": ""},
        {"Host": "127.0.0.1"},
        {"Origin": "http://faces.example"},
        {"Origin": "null"},
    ],
)
def test_another_name_or_site_is_refused(ask: Callable[..., Any], method: str, headers: dict[str, str]) -> None:
    path = {"GET": "/api/page", "POST": "/api/send"}[method]
    reply = ask(method, path, **headers)
    assert reply.status == 421
    assert "people" not in json.load(reply)


def test_its_own_names_and_origin_are_taken(ask: Callable[..., Any], page: Page) -> None:
    for name in (page.url[7:-1], page.url[7:-1].replace("127.0.0.1", "localhost")):
        assert ask("GET", "/api/page", Host=name, Origin=f"http://{name}").status == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods(ask: Callable[..., Any], method: str) -> None:
    reply = ask(method, "/api/send")
    assert reply.status == 501
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": ""}, 415),
        ({"Content_Length": ""}, 413),
        ({"Content_Length": "-1"}, 413),
        ({"Content_Length": "4097"}, 413),
        ({"Content_Length": "9" * 5000}, 413),
    ],
)
def test_bodies_that_are_not_read(ask: Callable[..., Any], headers: dict[str, str], status: int) -> None:
    reply = _post(ask, json.dumps(WISH).encode(), **headers)
    assert reply.status == status
    assert reply.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "\xff",
        "[" * 4000,
        json.dumps({**WISH, "more": 1}),
        json.dumps({"faces": [0]}),
        *(
            json.dumps({**WISH, "faces": faces})
            for faces in ([], [0, 0], [24], [-1], [0.5], [True], ["0"], "0", 0, {"0": 1}, [[0]], list(range(21)))
        ),
        *(json.dumps({**WISH, "network": network}) for network in ("other", 0, None, ["mixed"])),
        *(json.dumps({**WISH, "wire_dtype": dtype}) for dtype in ("float64", "", None, {})),
    ],
)
def test_wishes_that_will_not_do(ask: Callable[..., Any], body: str) -> None:
    reply = _post(ask, body.encode("latin-1"))
    assert reply.status == 400
    assert json.load(reply)["error"]


@pytest.mark.parametrize("network", ["mixed", "baseline"])
@pytest.mark.parametrize("wire_dtype", SIZES)
def test_faces_through_the_cloud(
    send: Callable[..., list[dict[str, Any]]], page: Page, network: str, wire_dtype: str
) -> None:
    mixed, answer = send(network=network, wire_dtype=wire_dtype)
    assert (mixed["event"], answer["event"]) == ("mixed", "answer")
    assert mixed["shape"] == [4, 9, 8, 8]
    assert len(mixed["decoys"]) == 1
    train, test = page.faces
    assert [one["face"] for one in answer["predictions"]] == WISH["faces"]
    for one in answer["predictions"]:
        assert one["right"] == (one["label"] == test.identity[one["face"]])
        assert train.identity[one["reference"]] == one["label"] == one["scores"][0][0]
        shares = [share for _, share in one["scores"]]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1 + 1e-6
    cost, size = answer["cost"], SIZES[wire_dtype]
    assert (cost["images"], cost["rows"], cost["requests"], cost["attempts"]) == (3, 4, 1, 1)
    assert cost["bytes_up"] > 4 * 8 * 8 * 8 * size
    assert cost["bytes_down"] > 4 * 64 * (4 if wire_dtype == "int8" else size)
    assert min(cost[f"{part}_seconds"] for part in ("edge", "cloud", "network")) > 0


def test_most_faces_are_one_request(send: Callable[..., list[dict[str, Any]]]) -> None:
    mixed, answer = send(faces=list(range(20)))
    assert (mixed["shape"][0], mixed["decoys"], answer["cost"]["requests"]) == (20, [], 1)


def test_the_same_faces_again_are_other_mixtures(send: Callable[..., list[dict[str, Any]]]) -> None:
    assert len({send(faces=[0, 1, 2, 3])[0]["values"] for _ in range(3)}) == 3


def test_many_at_once_get_their_own(send: Callable[..., list[dict[str, Any]]]) -> None:
    wishes = [{"faces": list(range(n, 2 * n)), "wire_dtype": list(SIZES)[n % 4]} for n in range(1, 13)]
    with ThreadPoolExecutor(len(wishes)) as pool:
        for wish, (mixed, answer) in zip(wishes, pool.map(lambda wish: send(**wish), wishes), strict=True):
            count = len(wish["faces"])
            assert [one["face"] for one in answer["predictions"]] == wish["faces"]
            assert answer["cost"]["images"] == count
            assert len(mixed["decoys"]) == -count % 4
            assert mixed["shape"][0] == count + -count % 4


def test_a_browser_that_leaves(page: Page, ask: Callable[..., Any], send: Callable[..., list[dict[str, Any]]]) -> None:
    for _ in range(3):
        _post(ask, json.dumps(WISH).encode()).close()
    assert send()[-1]["event"] == "answer"


def test_the_cloud_ends_and_comes_back(page: Page, send: Callable[..., list[dict[str, Any]]]) -> None:
    send()
    before, address = page.cloud.state, page.cloud.address
    os.kill(int(str(before["pid"])), signal.SIGKILL)
    events = send()
    assert [event["event"] for event in events[:-1]] in ([], ["mixed"])
    assert events[-1]["event"] == "error"
    assert events[-1]["text"] == "The cloud is gone: nobody answers at its address."
    _until(lambda: bool(page.cloud.state["running"]) and page.cloud.state != before)
    assert page.cloud.address == address
    assert send()[-1]["event"] == "answer"


def test_the_command(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    """Every option arrives."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("facemix.data.load_orl", lambda size=None: page.faces)
    monkeypatch.setattr("facemix.demo.web.run.run_web", lambda *args: calls.append(args))
    assert (
        main(["demo", "--web", "--web-port", "8123", "--group-size", "4", "--out", "o", "--cache", "c", "--fresh"]) == 0
    )
    assert calls == [(DemoSettings(group_size=4), page.faces, page.faces, Path("o"), Path("c"), True, 8123)]


def test_a_port_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--web", "--web-port", "65536"]) == 1
    assert "--web-port must be between 0 and 65535, got 65536" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facemix.demo.web.run.train_baseline", lambda *_: pytest.fail("it trains"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--web", "--web-port", str(port), "--cache", "c"]) == 1
    assert f"demo: --web-port must be a free port, got {port}" in capsys.readouterr().err


SCRIPT = """
from pathlib import Path
from facemix.data import synthetic_faces
from facemix.demo.settings import DemoSettings
from facemix.demo.web.run import run_web
from facemix.training.settings import FitSettings

settings = DemoSettings(size=(32, 32), width=0.125, group_size=4, baseline=FitSettings(epochs=1, batch_size=16))
faces = synthetic_faces(6, 8, (32, 32)).split(0.5, seed=0)
run_web(settings, faces, faces, Path("out"), Path("cache"))
"""


def test_from_training_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            text = ""
            while "the page is at" not in text:
                line = demo.stdout.readline()
                assert line, text
                text += line
            ports = [int(port) for port in re.findall(r"127\.0\.0\.1:([0-9]+)", text)]
            assert [_listens(port) for port in ports] == [True, True]
            demo.terminate()
            assert demo.wait(60) == 0
        finally:
            demo.kill()
    assert [_listens(port) for port in ports] == [False, False]


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
