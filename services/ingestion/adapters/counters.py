"""The broker's counters and the spool's backlog, read when Prometheus asks (docs/protocols.md 4)."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.ingestion.adapters.spool import SpoolFolder

_LINE = re.compile(r'([a-z_]+)(?:\{([a-z_]+)="([^"]*)"\})? ([0-9.]+)')


class BrokerCollector(Collector):
    """`zdm_broker_…` as the plugin counts them, and `zdm_spool_backlog_…`."""

    def __init__(self, counters: Path, spool: SpoolFolder) -> None:
        self._counters = counters
        self._spool = spool

    def describe(self) -> list[Metric]:
        """None beforehand: what there is depends on the plugin."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What there is now; nothing of a broker that never ran."""
        yield from self._broker()
        backlog = self._spool.backlog()
        yield _gauge("zdm_spool_backlog_bytes", "Written by the broker, not yet taken in", backlog.bytes)
        yield _gauge("zdm_spool_backlog_segments", "Segments that are kept", backlog.segments)
        yield _gauge("zdm_spool_backlog_age_seconds", "Age of the oldest record not yet taken in", backlog.oldest_age_s)

    def _broker(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, label, value, number in self._lines():
            family = families.get(name) or families.setdefault(name, _family(f"zdm_broker_{name}", label))
            family.add_metric([value] if label else [], float(number))
        yield from families.values()

    def _lines(self) -> Iterator[tuple[str, ...]]:
        with suppress(FileNotFoundError):
            for line in self._counters.read_text().splitlines():
                if (match := _LINE.fullmatch(line)) is not None:
                    yield match.groups(default="")


def _family(name: str, label: str) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, "As the broker's plugin counts it", labels=[label] if label else [])


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)
