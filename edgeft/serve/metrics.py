"""What Prometheus reads: requests by status, time to an answer, the line, batches, and which bundle it is."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from edgeft.runtime.manifest import Manifest

STATUSES = (200, 400, 408, 413, 415, 500, 503, 504)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        manifest: of the bundle.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "edgeft_requests", "Requests to /predict, by the answer's status.", ["status"], registry=self._registry
        )
        for status in STATUSES:
            self._requests.labels(str(status))
        self._seconds = Histogram(
            "edgeft_request_seconds",
            "From a request's head to its answer, where that is a decision.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "edgeft_batch_size", "Images or texts run together.", buckets=_SIZES, registry=self._registry
        )
        Info("edgeft_bundle", "What answers.", registry=self._registry).info(
            {
                "name": manifest.name,
                "content_digest": manifest.content_digest,
                "precision": manifest.precision,
                "target": manifest.target,
            }
        )

    def watch(self, waiting: Callable[[], int], taken: Callable[[], int]) -> None:
        """Show how many images or texts stand in line, and how many are in the server, whenever it is asked for."""
        in_line = Gauge("edgeft_queue_depth", "Images or texts that wait for a worker.", registry=self._registry)
        in_line.set_function(waiting)
        inside = Gauge(
            "edgeft_in_flight", "Images or texts being received, waiting or in work.", registry=self._registry
        )
        inside.set_function(taken)

    def answered(self, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(str(status)).inc()
        if status == 200:  # noqa: PLR2004 - a decision
            self._seconds.observe(seconds)

    def ran(self, size: int) -> None:
        """Count one batch."""
        self._batch.observe(size)

    def page(self) -> bytes:
        """Return Prometheus's text format."""
        return generate_latest(self._registry)
