"""The page's server: this machine only, a few addresses, one thing to ask for."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from .booth import Booth
from .photographs import Photographs

__all__ = ["PageServer", "check_port"]

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # whatever else a browser was told is not this page
LARGEST_BODY = 4096
IDLE_SECONDS = 30.0

JSON, EVENTS = "application/json", "application/x-ndjson"
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PHOTOGRAPH = re.compile(r"/photographs/([a-z]+)/([0-9]{1,6})\.png")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def check_port(port: int) -> None:
    """Raise an OSError if the page cannot have `port`. It says so before there is anything to show."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise OSError(f"demo: --web-port must be a free port, got {port}") from error


class PageServer(ThreadingHTTPServer):
    """Serves the page on this machine's loopback address, in threads, within a `with` block.

    Args:
        port: 0 takes a free one.
        booth, photographs: what the page shows.
        cloud: returns the state of the cloud process, as JSON values.
    """

    daemon_threads = True

    def __init__(
        self, port: int, booth: Booth, photographs: Photographs, cloud: Callable[[], dict[str, object]]
    ) -> None:
        super().__init__((HOST, port), _Handler)
        self.booth, self.photographs, self.cloud = booth, photographs, cloud
        folder = files("facemix.demo.web") / "static"
        self.static = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in STATIC.items()}
        self.hosts = {f"{name}:{self.server_port}" for name in NAMES}

        self._thread = threading.Thread(target=self.serve_forever, name="facemix-page", daemon=True)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    def __enter__(self) -> PageServer:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "facemix", ""
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        if not self._is_for_us():
            return
        if self.path in self.server.static:
            body, kind = self.server.static[self.path]
            self._reply(HTTPStatus.OK, body, kind)
        elif self.path == "/api/page":
            self._reply_json(HTTPStatus.OK, self.server.booth.describe())
        elif self.path == "/api/cloud":
            self._reply_json(HTTPStatus.OK, self.server.cloud())
        elif (found := PHOTOGRAPH.fullmatch(self.path)) and (
            png := self.server.photographs.png(found[1], int(found[2]))
        ):
            self._reply(HTTPStatus.OK, png, "image/png")
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        if not self._is_for_us():
            return
        if self.path != "/api/send":
            return self.send_error(HTTPStatus.NOT_FOUND, "no such page")
        # Forms of other sites cannot have this type, and their scripts may not send it here.
        if self.headers.get_content_type() != JSON:
            return self.send_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be {JSON}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 10 and int(length) <= LARGEST_BODY):
            return self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body must have 0 to {LARGEST_BODY} bytes")
        try:
            wish = json.loads(self.rfile.read(int(length)))
            if not isinstance(wish, dict) or wish.keys() != {"faces", "network", "wire_dtype"}:
                raise ValueError("send: the body must be an object with faces, network and wire_dtype")
            events = self.server.booth.send(**wish)
        except (ValueError, RecursionError) as error:
            return self.send_error(HTTPStatus.BAD_REQUEST, str(error))
        self._reply_events(events)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say what is wrong, and hang up: the rest of the request was perhaps not read."""
        self.close_connection = True
        self._reply_json(code, {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal stays for what people must know."""

    def _is_for_us(self) -> bool:
        """Whether the browser knows us by a name of ours, and, where it says on whose behalf it asks, that it is ours.
        Another site's name may be made to lead here.
        """
        host, origin = self.headers.get_all("Host", []), self.headers.get("Origin")
        if len(host) == 1 and host[0] in self.server.hosts and origin in (None, f"http://{host[0]}"):
            return True
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST, f"ask for {self.server.url}")
        return False

    def _reply_json(self, code: int, values: dict[str, Any]) -> None:
        self._reply(code, json.dumps(values).encode(), JSON)

    def _reply(self, code: int, body: bytes, kind: str) -> None:
        self._head(code, kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _reply_events(self, events: Iterator[dict[str, Any]]) -> None:
        """Each as a line, as soon as it happens, in a chunk of its own: a reader knows whether all arrived."""
        self._head(HTTPStatus.OK, EVENTS)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, code: int, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)
