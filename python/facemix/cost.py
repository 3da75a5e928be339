"""What a transfer costs: the paper's model of a link (its Table 1), and what a service adds to it.

The paper counts bytes over rates, and a round trip for each exchange. A request to our cloud also has frames around its
bytes and computing on both sides; a first request has a connection to set up. Left out are what the radio loses and
sends again, headers of TCP and IP (4 % of full packets; give `Link` the rate that is left), and TCP's slow start.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MIBIT", "PAPER_4G", "Exchange", "Link", "request_seconds", "setup_seconds", "transfer_seconds"]

#: Bits in the "Mb" of the paper, whose times come out with 2^20, not with 10^6.
MIBIT = 1 << 20

# Frames of gRPC over HTTP/2: a prefix for a message, a header for each frame, and the request's own headers, mostly
# references to those that the connection saw before.
MESSAGE_PREFIX, FRAME_HEADER, FRAME_BYTES, HEADERS_BYTES = 5, 9, 1 << 14, 100
# Records of TLS 1.3: header, type and tag; certificates and the rest of the handshake count as latency only.
RECORD_EXTRA, RECORD_BYTES = 22, 1 << 14
# Before a first request: SYN there and back; the server speaks when the next packet reaches it, and gRPC waits for its
# settings; with TLS, hello and certificate between the two.
TCP_ROUND_TRIPS, TLS_ROUND_TRIPS, SETTINGS_ROUND_TRIPS = 1, 1, 1


@dataclass(frozen=True)
class Link:
    """A connection between edge and cloud.

    Attributes:
        up, down: bit/s from the edge and to it.
        latency: seconds one way.

    Raises:
        ValueError: if a rate is not positive, or the latency negative.
    """

    up: float
    down: float
    latency: float

    def __post_init__(self) -> None:
        for name, rate in (("up", self.up), ("down", self.down)):
            if not rate > 0:
                raise ValueError(f"Link: {name} must be positive, got {rate}")
        if not self.latency >= 0:
            raise ValueError(f"Link: latency must not be negative, got {self.latency}")

    @property
    def round_trip(self) -> float:
        """Seconds there and back."""
        return 2 * self.latency


#: The 4G LTE of the paper's Table 1.
PAPER_4G = Link(up=15 * MIBIT, down=30 * MIBIT, latency=0.025)


def transfer_seconds(link: Link, bytes_up: float, bytes_down: float, round_trips: int = 1) -> float:
    """Seconds that bytes take, by the model of the paper's Table 1: nothing overlaps, and each of `round_trips`
    exchanges waits for the latency there and back.
    """
    return 8 * bytes_up / link.up + 8 * bytes_down / link.down + round_trips * link.round_trip


@dataclass(frozen=True)
class Exchange:
    """One request of an edge client, as a `Cost` describes it.

    Attributes:
        messages: that the request was cut into, at least 1; as many answers come back.
        bytes_up, bytes_down: of all messages and of all answers, without their frames.
        edge_seconds, cloud_seconds: of computing here and there, for the whole request.

    Raises:
        ValueError: if there is no message.
    """

    messages: int
    bytes_up: int
    bytes_down: int
    edge_seconds: float = 0.0
    cloud_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.messages < 1:
            raise ValueError(f"Exchange: messages must be at least 1, got {self.messages}")


def request_seconds(link: Link, exchange: Exchange, *, tls: bool = False) -> float:
    """Seconds from images to predictions on a connection that is open.

    The messages of a request are on their way at the same time and share the link, so that they arrive together: the
    cloud is taken to begin when all have come, and the edge when it has all answers. There is one round trip, however
    many messages there are.
    """
    up, down = (framed_bytes(size, exchange.messages, tls) for size in (exchange.bytes_up, exchange.bytes_down))
    return exchange.edge_seconds + transfer_seconds(link, up, down) + exchange.cloud_seconds


def setup_seconds(link: Link, *, tls: bool = False) -> float:
    """Seconds from nothing to a connection that takes requests."""
    return link.round_trip * (TCP_ROUND_TRIPS + TLS_ROUND_TRIPS * tls + SETTINGS_ROUND_TRIPS)


def framed_bytes(size: int, messages: int, tls: bool) -> int:
    """Bytes on the connection for `size` bytes in `messages` messages of about the same size."""
    frames = messages * -(-(size // messages + MESSAGE_PREFIX) // FRAME_BYTES)
    framed = size + messages * (MESSAGE_PREFIX + HEADERS_BYTES) + frames * FRAME_HEADER
    return framed + (-(-framed // RECORD_BYTES) * RECORD_EXTRA if tls else 0)
