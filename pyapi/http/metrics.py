"""What Prometheus is told. Labels hold names of ours only: routes, codes, registered runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import AsyncConnectionPool

from ..workspace import Change

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one service."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Pool(pool))
        self._requests = Counter(
            "runtime_registry_requests",
            "Requests by operation and status.",
            ["operation", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "runtime_registry_request_seconds",
            "How long requests took.",
            ["operation"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self._registry,
        )
        self._resets = Counter(
            "runtime_registry_model_resets",
            "Orphaned models that were replaced, by the new runtime and by where from.",
            ["runtime", "model_source"],
            registry=self._registry,
        )
        self._refusals = Counter(
            "runtime_registry_refusals",
            "Requests that were refused or failed, by code.",
            ["code"],
            registry=self._registry,
        )

    def answered(self, operation: str, status: int, code: str | None, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(operation, status).inc()
        self._seconds.labels(operation).observe(seconds)
        if code:
            self._refusals.labels(code).inc()

    def changed(self, change: Change) -> None:
        """Count what a committed change did."""
        if change.model_was_reset:
            self._resets.labels(change.runtime, change.model_source).inc()

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)


class _Pool(Collector):
    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        found = self._pool.get_stats()
        connections = GaugeMetricFamily(
            "runtime_registry_pool_connections",
            "Connections to the database by state.",
            labels=["state"],
        )
        open_, idle = found.get("pool_size", 0), found.get("pool_available", 0)
        connections.add_metric(["idle"], idle)
        connections.add_metric(["used"], open_ - idle)
        yield connections
        waiting = found.get("requests_waiting", 0)
        yield GaugeMetricFamily(
            "runtime_registry_pool_waiting", "Requests that wait for a connection.", waiting
        )
