"""A run as Prometheus sees it. Every series is of one collection; none is of a document, a key or a reason."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event, Lock, get_ident

from bartizan_connector.base.errors import Retry, missing_extra
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.flight import Flight
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Measured, Source
from bartizan_connector.stream.watch import Watch

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector
except ImportError as error:
    raise missing_extra("prometheus-client", "stream") from error

CONTENT_TYPE = CONTENT_TYPE_LATEST
OUTCOMES = ("written", "unchanged", "stale", "deleted", "dead", "dropped")
_FRESH = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0)
_SIZES = (1, 8, 32, 64, 128, 256, 512, 1000)


class Metrics(Watch):
    """Counts in a registry of its own."""

    def __init__(self, collection: Collection, source: Source, *, clock: Callable[[], float] = time.time) -> None:
        self._registry = CollectorRegistry()
        self._clock = clock
        self._lock = Lock()
        self._waiters: set[int] = set()
        """Threads that wait for something."""
        self._scraped = Event()
        name = collection.name
        self._read = self._counter("messages_read", "Messages that were read and are done with", name)
        self._outcomes = self._counter("messages", "What became of them", name, "outcome")
        self._encoded = self._counter("encoded", "Texts that the towers encoded", name)
        self._tokens = self._counter("tokens", "Tokens of these texts, of all legs together", name)
        self._cut = self._counter("truncated_tokens", "Tokens beyond what a tower reads, which are not searched", name)
        self._seconds = self._counter("stage_seconds", "Seconds spent in each stage", name, "stage")
        self._retries = self._counter("retries", "Calls that failed for the time being", name)
        self._mixed = self._counter("mixed_spaces_refused", "Runs that met vectors of another space", name)
        self._waiting = self._gauge("waiting", "Whether something is waited for that does not answer", name)
        self._depth = self._gauge("batches_in_flight", "Batches by where they are", name, "place")
        self._size = self._gauge("batch_size", "Most messages of the next batch", name)
        self._moved = self._gauge("last_batch_timestamp_seconds", "When a batch was last done with", name)
        self._fresh = self._histogram("freshness_seconds", "From a message's time to its being stored", name, _FRESH)
        self._sizes = self._histogram("batch_messages", "Messages of a batch", name, _SIZES)
        spaces = self._gauge("space_info", "1 for each leg and its space", name, "leg", "space_id")
        for leg in collection.legs:
            spaces(leg.name, leg.space_id).set(1)
        for outcome in OUTCOMES:
            self._outcomes(outcome)
        for each in (self._read, self._encoded, self._tokens, self._cut, self._retries, self._mixed, self._waiting):
            each()  # a series that is there from the beginning, so that its first increase is seen
        if isinstance(source, Measured):
            self._registry.register(_OfSource(name, source))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """What a scrape gets."""
        page = bytes(generate_latest(self._registry))
        self._scraped.set()
        return page

    def await_scrape(self, seconds: float) -> None:
        """Wait until somebody has what is counted now, but no longer than that."""
        self._scraped.clear()
        self._scraped.wait(seconds)

    def turns(self, preparing: int, prepared: int, writing: int) -> None:
        for place, count in (("preparing", preparing), ("prepared", prepared), ("writing", writing)):
            self._depth(place).set(count)

    def written(self, flight: Flight) -> None:
        now = self._clock()
        stored = {id(change) for change, _ in (*flight.done.write, *flight.done.delete, *flight.done.advance)}
        for message, change in flight.alive:
            if message.timestamp is not None and id(change) in stored:
                self._fresh.observe(max(0.0, now - message.timestamp))

    def left(self, flight: Flight, share: Report, size: int) -> None:
        self._read().inc(share.read)
        for outcome in OUTCOMES:
            self._outcomes(outcome).inc(getattr(share, outcome))
        self._encoded().inc(sum(len(each.chunks) for each in flight.encoded.values()))
        self._tokens().inc(sum(each.tokens for each in flight.encoded.values()))
        self._cut().inc(sum(each.cut for each in flight.encoded.values()))
        for stage, seconds in share.stages.items():
            self._seconds(stage).inc(seconds)
        self._sizes.observe(share.read)
        self._size().set(size)
        self._moved().set(self._clock())

    def waits(self, error: Retry | None) -> None:
        self._retries().inc(error is not None)
        with self._lock:
            (self._waiters.discard if error is None else self._waiters.add)(get_ident())
            self._waiting().set(bool(self._waiters))

    def mixed(self) -> None:
        """Vectors of another space were met, and refused."""
        self._mixed().inc()

    def _counter(self, name: str, help: str, collection: str, *labels: str) -> Callable[..., Counter]:
        made = Counter(f"bartizan_ingest_{name}", help, ["collection", *labels], registry=self._registry)
        return lambda *values: made.labels(collection, *values)

    def _histogram(self, name: str, help: str, collection: str, buckets: Sequence[float]) -> Histogram:
        name = f"bartizan_ingest_{name}"
        return Histogram(name, help, ["collection"], registry=self._registry, buckets=buckets).labels(collection)

    def _gauge(self, name: str, help: str, collection: str, *labels: str) -> Callable[..., Gauge]:
        made = Gauge(f"bartizan_ingest_{name}", help, ["collection", *labels], registry=self._registry)
        return lambda *values: made.labels(collection, *values)


class _OfSource(Collector):
    """What the source knows itself, asked at each scrape."""

    def __init__(self, collection: str, source: Measured) -> None:
        self._collection = collection
        self._source = source

    def collect(self) -> Iterable[Metric]:
        lags: Mapping[str, int] | None = self._source.lags
        lag = GaugeMetricFamily("bartizan_ingest_lag", "Messages not committed yet", labels=["collection", "partition"])
        for partition, count in (lags or {}).items():
            lag.add_metric([self._collection, partition], count)
        restarts = CounterMetricFamily(
            "bartizan_ingest_restarts", "How often the connection was made anew", labels=["collection"]
        )
        restarts.add_metric([self._collection], self._source.restarts)
        return [lag, restarts]
