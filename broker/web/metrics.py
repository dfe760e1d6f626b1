"""What Prometheus scrapes: how the broker does, under names that begin with ``lendmesh_``.

Requests and solves are counted as they happen; the federation (leases, offers, devices, agents) is counted when
somebody looks. A registry of its own for every broker, so that two of them in one process don't mix.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from broker.service.census import Census
from broker.service.placing import Round

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics of one broker."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "lendmesh_requests", "HTTP requests answered", ["operation", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "lendmesh_request_seconds",
            "Time to answer a request, in seconds (watches are left out)",
            ["operation"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._solve = Histogram(
            "lendmesh_solve_seconds",
            "Time of one solve over all open requests, in seconds",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._outcomes = Counter(
            "lendmesh_placements", "What became of requests in placement rounds", ["outcome"], registry=registry
        )
        self._gap = Gauge(
            "lendmesh_solve_gap", "Of the last solve: how far its cost may be above the best, 0 to 1", registry=registry
        )
        self._streams = Gauge("lendmesh_watch_streams", "Open watch streams", registry=registry)
        self._leases = Gauge("lendmesh_leases", "Leases by state", ["state"], registry=registry)
        self._open = Gauge("lendmesh_requests_open", "Capacity requests that look for a place", registry=registry)
        self._offers = Gauge("lendmesh_offers", "Offers of lenders that may lend now", registry=registry)
        self._devices = Gauge(
            "lendmesh_devices_on_offer", "Devices that could be leased at this moment", registry=registry
        )
        self._leased = Gauge("lendmesh_devices_leased", "Devices in live leases", registry=registry)
        self._revision = Gauge(
            "lendmesh_log_revision", "Revision of the log: its rate is that of events", registry=registry
        )
        self._seen = Gauge(
            "lendmesh_cluster_last_seen_timestamp_seconds",
            "When a cluster's agent was last heard, in seconds since the epoch",
            ["cluster"],
            registry=registry,
        )

    def count_streams(self, count: Callable[[], int]) -> None:
        """Where to look for the number of open streams."""
        self._streams.set_function(count)

    def saw(self, *, operation: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        self._requests.labels(operation, known, str(status)).inc()
        if not operation.startswith("watch_"):
            self._seconds.labels(operation).observe(seconds)

    def placed(self, done: Round) -> None:
        """One placement round ended."""
        if isinstance(milliseconds := done.solver.get("wall_ms"), int | float):
            self._solve.observe(milliseconds / 1_000)
        if isinstance(gap := done.solver.get("gap"), int | float):
            self._gap.set(gap)
        for outcome, requests in (("placed", done.placed), ("lost", done.lost), ("refused", done.refused)):
            self._outcomes.labels(outcome).inc(len(requests))

    def text(self, census: Census) -> bytes:
        """Everything, in the text format that Prometheus scrapes."""
        for gauge, values in ((self._leases, census.leases), (self._seen, census.last_seen)):
            gauge.clear()
            for label, value in values.items():
                gauge.labels(label).set(value)
        self._open.set(census.open_requests)
        self._offers.set(census.offers)
        self._devices.set(census.devices)
        self._leased.set(census.leased_devices)
        self._revision.set(census.revision)
        return generate_latest(self._registry)
