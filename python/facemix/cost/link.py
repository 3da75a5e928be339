"""What a transfer costs: the paper's model of a link (its Table 1), and what a service adds to it.

The paper counts bytes over rates, and a round trip for each exchange. A request to our cloud is cut into messages that
follow each other, so that the cloud computes for one while the next is on its way; a first request has a connection to
set up. Left out are what the radio loses and sends again, TCP's slow start, and headers of TCP, IP and TLS, 4 % of full
packets: give `Link` the rate that is left for what they carry.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MIBIT", "PAPER_4G", "Exchange", "Link", "request_seconds", "setup_seconds", "transfer_seconds"]

#: Bits in the "Mb" of the paper, whose times come out with 2^20, not with 10^6.
MIBIT = 1 << 20

# What gRPC and HTTP/2 put around a message, mostly references to headers that the connection saw before.
MESSAGE_OVERHEAD = 100
# What HTTP/2 lets a client send of a message before the server says that it wants the rest.
WINDOW_BYTES = (1 << 16) - 1
# Before a first request: SYN there and back; the server speaks when the next packet reaches it, and gRPC waits for its
# settings; with TLS 1.3, hello and certificate between the two.
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


def request_seconds(link: Link, exchange: Exchange) -> float:
    """Seconds from images to predictions on a connection that is open.

    The edge computes first. Then its messages, of about the same size, follow each other through three stages: up, the
    cloud, and down; each stage takes one at a time, so that the slowest sets the pace. The windows of all messages go
    up before the rest of the first; a link that is idle by then waits for the server's word. Otherwise there is one
    round trip, however many messages there are.
    """
    count = exchange.messages
    stages = (
        8 * (exchange.bytes_up / count + MESSAGE_OVERHEAD) / link.up,
        exchange.cloud_seconds / count,
        8 * (exchange.bytes_down / count + MESSAGE_OVERHEAD) / link.down,
    )
    idle = 0.0
    if exchange.bytes_up / count > WINDOW_BYTES:
        idle = max(0.0, link.round_trip - 8 * count * WINDOW_BYTES / link.up)
    return exchange.edge_seconds + link.round_trip + idle + sum(stages) + (count - 1) * max(stages)


def setup_seconds(link: Link, *, tls: bool = False) -> float:
    """Seconds from nothing to a connection that takes requests."""
    return link.round_trip * (TCP_ROUND_TRIPS + TLS_ROUND_TRIPS * tls + SETTINGS_ROUND_TRIPS)
