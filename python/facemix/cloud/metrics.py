"""What the server counts, for Prometheus. No name or label holds anything that a caller sent."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from .model import CloudModel

__all__ = ["Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one server, in `registry`, or in one of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = own = registry or CollectorRegistry()
        self._request = Histogram(
            "facemix_request_seconds", "From the start of a ModelInfer call to its end", registry=own, buckets=SECONDS
        )
        self._queue = Histogram(
            "facemix_queue_seconds", "A request's wait for its batch to begin", registry=own, buckets=SECONDS
        )
        self._compute = Histogram(
            "facemix_compute_seconds", "A batch's time in the model", registry=own, buckets=SECONDS
        )
        self._rows = Histogram("facemix_batch_rows", "Rows of a batch", registry=own, buckets=ROWS)
        self._requests = Counter("facemix_requests", "ModelInfer calls by status", ["code"], registry=own)
        self._refusals = Counter("facemix_refusals", "Calls refused, by reason", ["reason"], registry=own)
        self._received = Counter("facemix_received_bytes", "Bytes of ModelInfer requests", registry=own)
        self._sent = Counter("facemix_sent_bytes", "Bytes of ModelInfer responses", registry=own)
        self._held = Gauge("facemix_queue_requests", "Requests that wait or are computed", registry=own)
        self._held_bytes = Gauge(
            "facemix_queue_bytes",
            "Their features, as float32, and room for answers until they are sent",
            registry=own,
        )
        self._models = Gauge("facemix_model", "Models loaded", ["name", "version", "network"], registry=own)

    def serve(self, host: str, port: int) -> int:
        """Answer GET /metrics from a thread; returns the port.

        Raises:
            OSError: if the address is not to be had.
        """
        try:
            server, _ = start_http_server(port, host, self._registry)
        except OSError as error:
            raise OSError(f"serve: {host}:{port}, for metrics, must be a free address of this machine") from error
        return int(server.server_port)

    def request(self, code: str, seconds: float) -> None:
        """A ModelInfer call ended."""
        self._requests.labels(code).inc()
        self._request.observe(seconds)

    def refusal(self, reason: str) -> None:
        """A call was refused."""
        self._refusals.labels(reason).inc()

    def received(self, nbytes: int) -> None:
        """The message of a request is here."""
        self._received.inc(nbytes)

    def sent(self, nbytes: int) -> None:
        """The message of a response is ready."""
        self._sent.inc(nbytes)

    def held(self, requests: int, nbytes: int) -> None:
        """The queue grew, or shrank, by this much."""
        self._held.inc(requests)
        self._held_bytes.inc(nbytes)

    def computed(self, rows: int, seconds: float, waits: Iterable[float]) -> None:
        """A batch is done; `waits` are its requests' seconds in the queue."""
        self._rows.observe(rows)
        self._compute.observe(seconds)
        for wait in waits:
            self._queue.observe(wait)

    def models(self, models: Iterable[CloudModel]) -> None:
        """These, and no others, are loaded."""
        self._models.clear()
        for model in models:
            self._models.labels(model.name, str(model.version), model.network).set(1)
