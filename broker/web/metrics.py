"""What Prometheus scrapes: how the broker does, under names that begin with ``lendmesh_``.

Requests are counted as they happen; the federation (leases, offers, devices, agents) is counted when somebody looks,
from the store. A registry of its own for every broker, so that two of them in one process don't mix.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics of one broker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "lendmesh_requests_total",
            "HTTP requests answered",
            ["operation", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "lendmesh_request_seconds",
            "Time from the request's headers to the end of the answer, in seconds (watches are left out)",
            ["operation"],
            buckets=_BUCKETS,
            registry=self.registry,
        )

        self._streams = Gauge("lendmesh_watch_streams", "Open watch streams", registry=self.registry)

    def count_streams(self, count: Callable[[], int]) -> None:
        """Where to look for the number of open streams."""
        self._streams.set_function(count)

    def saw(self, *, operation: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        self._requests.labels(operation, known, str(status)).inc()
        if not operation.startswith("watch_"):
            self._seconds.labels(operation).observe(seconds)

    def text(self) -> bytes:
        """Everything in the text format that Prometheus scrapes."""
        return generate_latest(self.registry)


__all__ = ["CONTENT_TYPE", "Gauge", "Metrics"]
