"""What the service counts, for Prometheus.

A registry of its own, so that several services may live in one process.
"""

from __future__ import annotations

import resource
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from unmixer_app.service.store import STATES

MEDIA_TYPE = CONTENT_TYPE_LATEST
SEARCH_S = (1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 300)
#: Others count as "other": whoever asks must not be able to make series without end.
METHODS = {"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"}
RENDER_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)


class Meters:
    """Counters and histograms; gauges are set when somebody asks."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "unmixer_http_requests", "Answered requests.", ("method", "status"), registry=registry
        )
        self._searches = Counter(
            "unmixer_searches", "Searches that ended, by outcome.", ("state",), registry=registry
        )
        self._search_s = Histogram(
            "unmixer_search_seconds",
            "From a job's start to its end.",
            buckets=SEARCH_S,
            registry=registry,
        )
        self._render_s = Histogram(
            "unmixer_render_seconds",
            "POST /render, waiting included.",
            buckets=RENDER_S,
            registry=registry,
        )
        self._refused = Counter(
            "unmixer_refused",
            "Uploads that were not accepted, by reason.",
            ("why",),
            registry=registry,
        )
        self._jobs = Gauge(
            "unmixer_jobs", "Jobs that are kept, by state.", ("state",), registry=registry
        )
        self._ready = Gauge(
            "unmixer_searchers_ready", "Searchers that have loaded the model.", registry=registry
        )
        self._bytes = Gauge(
            "unmixer_results_bytes", "What ended jobs take on disk.", registry=registry
        )
        self._memory = Gauge(
            "unmixer_server_peak_bytes",
            "Largest memory of the server's own process.",
            registry=registry,
        )

    def requested(self, method: str, status: int) -> None:
        self._requests.labels(method if method in METHODS else "other", str(status)).inc()

    def searched(self, seconds: float, state: str) -> None:
        self._searches.labels(state).inc()
        self._search_s.observe(seconds)

    def rendered(self, seconds: float) -> None:
        self._render_s.observe(seconds)

    def refused(self, why: str) -> None:
        self._refused.labels(why).inc()

    def text(self, counts: dict[str, int], ready: int, kept_bytes: int) -> bytes:
        """The exposition format."""
        for state in STATES:
            self._jobs.labels(state).set(counts[state])
        self._ready.set(ready)
        self._bytes.set(kept_bytes)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._memory.set(peak * (1 if sys.platform == "darwin" else 1024))
        return generate_latest(self._registry)
