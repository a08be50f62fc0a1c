"""prometheus_client's collector: asks the gateway at each scrape.  No other module knows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from oegw.metrics.families import Family, families
from policy.flow import IPAddress

FRESH = 1.0  # seconds for which an answer is good: several scrapers ask once

Ask = Callable[[], Mapping[str, Any] | None]


class GatewayCollector(Collector):
    """``ask`` gives the gateway's answer, or None if it gives none."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._found: list[Family] = []
        self._until: float | None = None

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            began = self._clock()
            if self._until is None or began >= self._until:
                answer = self._ask()
                ended = self._clock()
                self._found = families(answer, ended - began)
                self._until = ended + FRESH
            found = self._found
        for family in found:
            yield _metric(family)


def _metric(family: Family) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: Metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.samples:
        metric.add_metric(labels, value)  # type: ignore[attr-defined]
    return metric


def _registry(ask: Ask) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GatewayCollector(ask))
    return registry


def text(ask: Ask) -> str:
    """What a scrape gets."""
    return generate_latest(_registry(ask)).decode()


def listen(ask: Ask, address: IPAddress, port: int) -> Callable[[], None]:
    """Serve in a thread; returns what ends it.  Raises OSError."""
    server, thread = start_http_server(port, str(address), _registry(ask))

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
