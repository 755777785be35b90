"""What a server tells about itself, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counts of one server.

    Args:
        paths: that are told by name; all others together.
        gauges: what is looked at when asked, by name: its description and its value.
    """

    def __init__(self, paths: tuple[str, ...], gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self.registry, self.paths = CollectorRegistry(), paths
        self._requests = Counter("almkit_requests", "Answers.", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "almkit_request_seconds", "From the head to the end.", ("path",), buckets=SECONDS, registry=self.registry
        )
        self.first_audio = Histogram(
            "almkit_first_audio_seconds", "To a speech's first sound.", buckets=SECONDS, registry=self.registry
        )
        self.made = Counter("almkit_audio_made_seconds", "Speech that was made.", registry=self.registry)
        self.heard = Counter("almkit_audio_heard_seconds", "Recordings that were heard.", registry=self.registry)
        for name, (words, value) in gauges.items():
            Gauge(f"almkit_{name}", words, registry=self.registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; status 0: the client had left before it."""
        path = path if path in self.paths else "other"
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
