"""Who watches an ingest: a person at a terminal, and, where an address is given, Prometheus and an orchestrator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import SpaceMismatch
from bartizan_connector.base.progress import Tick, progress

if TYPE_CHECKING:
    from bartizan_connector.store.collection import Collection
    from bartizan_connector.stream.source import Source
    from bartizan_connector.stream.watch import Watch

LAST_SCRAPE_SECONDS = 30.0
"""How long a worker that met another space waits for its count to be fetched before it ends."""


@contextmanager
def told(listen: str | None, collection: "Collection", source: "Source") -> "Iterator[Watch]":
    """Metrics and health at that address while the block runs; without one, nothing."""
    from bartizan_connector.stream.source import Measured
    from bartizan_connector.stream.watch import NOBODY, Several

    if listen is None:
        yield NOBODY
        return
    from bartizan_connector.stream.worker.endpoint import Endpoint
    from bartizan_connector.stream.worker.health import Health
    from bartizan_connector.stream.worker.metrics import Metrics

    metrics = Metrics(collection, source)
    measured = source if isinstance(source, Measured) else None
    health = Health(None if measured is None else lambda: measured.lags)
    with Endpoint(listen, metrics, health) as endpoint:
        err.print(f"metrics and health at {endpoint.url}: /metrics, /healthz, /readyz", markup=False)
        try:
            yield Several(metrics, health)
        except SpaceMismatch:
            metrics.mixed()
            metrics.await_scrape(LAST_SCRAPE_SECONDS)
            raise


@contextmanager
def shown(collection: "Collection", source: "Source") -> Iterator[Tick]:
    """How far it is; of a source that is followed, how far behind."""
    from bartizan_connector.stream.source import Measured

    measured = source if isinstance(source, Measured) else None
    with progress(f"ingesting into {collection.name}", total=source.backlog()) as tick:

        def tell(done: int = 1, note: str = "") -> None:
            lags = measured.lags if measured is not None else None
            tick(done, note if lags is None else f"{sum(lags.values()):,} behind")

        yield tell
