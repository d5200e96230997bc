"""Metrics, health and pace: what a run tells is what it did."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, WrongUse
from bartizan_connector.commands.watching import told
from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.pace import LEAST, Pace
from bartizan_connector.stream.patience import ENDLESS, Patience, Waiting
from bartizan_connector.stream.source import Message
from bartizan_connector.stream.watch import Several, Watch
from bartizan_connector.stream.worker.endpoint import Endpoint
from bartizan_connector.stream.worker.health import STILL_SECONDS, Health
from bartizan_connector.stream.worker.metrics import Metrics
from tests.connector.stream.faults import COLLECTION, Backend, Encoder, run_dense
from tests.connector.stream.reading import WordReading
from tests.connector.stream.streams import ListSource, message

FREE = "127.0.0.1:0"


def values(page: bytes) -> dict[str, float]:
    """Series → value."""
    lines = [line.rpartition(" ") for line in page.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


class Partitions(ListSource):
    """A source that knows how far behind it is."""

    lags: Any = {"docs[0]": 7, "docs[1]": 0}  # noqa: RUF012
    restarts = 2


def measured(source: ListSource, encoder: Encoder, backend: Backend | None = None, **more: Any) -> dict[str, float]:
    metrics = Metrics(COLLECTION, source, clock=lambda: 1_000.0)
    run_dense(source, encoder, backend or Backend(), COLLECTION, watch=metrics, **more)
    return values(metrics.page())


def test_every_message_is_counted_once_by_what_became_of_it() -> None:
    changes = [message("a", "one two three four five", 1), message("b", "one", 1), message("b", None, 2)]
    old = [message("a", "other", 0), Message(position="x", value=b"{", version=0), message("c", "one", 1)]
    found = measured(Partitions([*changes, *old], batch_size=3), Encoder())
    outcomes = {
        outcome: found[f'bartizan_ingest_messages_total{{collection="docs",outcome="{outcome}"}}']
        for outcome in ("written", "deleted", "stale", "dead", "unchanged", "dropped")
    }
    assert outcomes == {"written": 2, "deleted": 1, "stale": 2, "dead": 1, "unchanged": 0, "dropped": 0}
    one = '{collection="docs"}'
    assert found[f"bartizan_ingest_messages_read_total{one}"] == 6
    assert found[f"bartizan_ingest_batch_messages_count{one}"] == 2
    assert found[f"bartizan_ingest_encoded_total{one}"] == 2
    tokens, cut = (found[f"bartizan_ingest_{name}_total{one}"] for name in ("tokens", "truncated_tokens"))
    assert (tokens, cut) == (6, 2)
    assert found['bartizan_ingest_lag{collection="docs",partition="docs[0]"}'] == 7
    assert found[f"bartizan_ingest_restarts_total{one}"] == 2
    assert found[f"bartizan_ingest_waiting{one}"] == 0
    assert any(name.startswith('bartizan_ingest_space_info{collection="docs",leg="dense",space_id="') for name in found)


def test_every_chunk_is_a_text_that_was_encoded() -> None:
    source = ListSource([message("a", "one two three. four five six. seven", 1), message("b", "one", 1)])
    cutter = Cutter({"dense": WordReading(4)}, ChunkSettings())
    found = measured(source, Encoder(), cutter=cutter)
    assert found['bartizan_ingest_encoded_total{collection="docs"}'] == 3


def test_freshness_is_from_a_messages_time_to_its_being_stored() -> None:
    stamped = [
        Message(position=str(n), value=b'{"text": "one"}', key=str(n), version=n, timestamp=1_000.0 - age)
        for n, age in enumerate((0.05, 2.0, 2.0, 7_200.0), start=1)
    ]
    found = measured(ListSource(stamped), Encoder())
    below = {
        le: found[f'bartizan_ingest_freshness_seconds_bucket{{collection="docs",le="{le}"}}']
        for le in ("0.1", "1.0", "2.5", "3600.0", "21600.0")
    }
    assert below == {"0.1": 1, "1.0": 1, "2.5": 3, "3600.0": 3, "21600.0": 4}


def test_a_call_that_is_made_again_is_counted_and_makes_unready_meanwhile() -> None:
    source = ListSource([message("a", "one", 1)])
    metrics, health, seen = Metrics(COLLECTION, source), Health(), []
    both = Several(metrics, health)

    def sleep(seconds: float) -> None:
        seen.append((health.unready(), values(metrics.page())['bartizan_ingest_waiting{collection="docs"}']))

    encoder = Encoder(Retry("the tower is away"), Retry("the tower is away"))
    run_dense(source, encoder, Backend(), COLLECTION, watch=both, patience=Patience(sleep=sleep))
    assert seen == [("the tower is away", 1.0)] * 2
    assert values(metrics.page())['bartizan_ingest_retries_total{collection="docs"}'] == 2
    assert health.unready() is None


def test_who_waits_in_one_thread_is_not_done_waiting_when_another_got_its_answer() -> None:
    metrics, health = Metrics(COLLECTION, ListSource([])), Health()
    both = Several(metrics, health)
    health.turns(0, 0, 0)
    both.waits(Retry("the store is away"))
    with ThreadPoolExecutor(1) as beside:
        for error in (Retry("the tower is away"), None):
            beside.submit(both.waits, error).result()
            assert health.unready() == "the store is away"
            assert values(metrics.page())['bartizan_ingest_waiting{collection="docs"}'] == 1
    both.waits(None)
    assert health.unready() is None
    assert values(metrics.page())['bartizan_ingest_waiting{collection="docs"}'] == 0


def test_who_has_not_begun_is_not_dead() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    now[0] += 10 * STILL_SECONDS
    assert health.dead() is None
    assert health.unready() == "the collection is being opened"
    health.turns(0, 0, 0)
    now[0] += STILL_SECONDS + 1
    assert health.dead() is not None


def test_that_another_space_was_met_can_be_fetched_before_the_end() -> None:
    read = Event()

    def fail() -> None:
        with told(FREE, COLLECTION, ListSource([])) as watch:
            assert isinstance(watch, Several)
            pages.append(watch._watches[0])  # type: ignore[arg-type]
            read.set()
            raise SpaceMismatch("docs", expected="a", came="b", way_out="")

    pages: list[Metrics] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            fail()
        except SpaceMismatch as error:
            failures.append(error)

    thread = Thread(target=run)
    thread.start()
    assert read.wait(5)
    name = 'bartizan_ingest_mixed_spaces_refused_total{collection="docs"}'
    while thread.is_alive():
        found = values(pages[0].page())[name]
        thread.join(0.05)
    assert found == 1
    assert failures


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_metrics_are_told_at_an_address() -> None:
    now, lags = [0.0], [None]
    health = Health(lambda: lags[0], clock=lambda: now[0])
    with Endpoint(FREE, Metrics(COLLECTION, Partitions([])), health) as endpoint:
        assert get(f"{endpoint.url}/healthz") == (200, "ok\n")
        assert get(f"{endpoint.url}/readyz") == (503, "the collection is being opened\n")
        health.turns(0, 0, 0)
        assert get(f"{endpoint.url}/readyz")[1].startswith("the brokers have not said")
        lags[0] = {}  # type: ignore[call-overload]
        assert get(f"{endpoint.url}/readyz") == (200, "ok\n")
        now[0] += STILL_SECONDS + 1
        assert get(f"{endpoint.url}/healthz") == (503, "the pipeline has not moved for 121 s\n")
        assert get(f"{endpoint.url}/readyz")[0] == 503
        health.waits(Retry("away"))
        assert get(f"{endpoint.url}/healthz")[0] == 200, "who waits is alive"
        assert "bartizan_ingest_lag" in get(f"{endpoint.url}/metrics?name=x")[1]
        assert get(f"{endpoint.url}/other") == (404, "there are /metrics, /healthz, /readyz\n")
        with pytest.raises(WrongUse, match=r"cannot listen on 127\.0\.0\.1:\d+: .*give another address"):
            Endpoint(endpoint.url.removeprefix("http://"), Metrics(COLLECTION, ListSource([])), health)
    with pytest.raises(WrongUse, match="a port is at most 65535"):
        Endpoint("127.0.0.1:70000", Metrics(COLLECTION, ListSource([])), health)


def test_two_runs_in_one_process_count_apart() -> None:
    assert measured(ListSource([message("a", "one", 1)]), Encoder()) is not None
    found = measured(ListSource([message("a", "one", 1)]), Encoder())
    assert found['bartizan_ingest_messages_read_total{collection="docs"}'] == 1


# ---- pace


@pytest.mark.parametrize("a_message", [0.001, 0.1, 0.5, 3.0])
def test_a_batch_comes_to_take_about_what_it_shall(a_message: float) -> None:
    pace = Pace(256, seconds=5.0)
    for _ in range(20):
        pace.took(pace.size, pace.size * a_message)
    assert pace.size == 256 or pace.size == LEAST or 2.5 <= pace.size * a_message <= 10.0
    assert (pace.size == 256) == (a_message == 0.001)
    for _ in range(20):
        pace.took(pace.size, 0.0)
    assert pace.size == 256, "it grows again, up to the most"


def test_a_small_batch_says_nothing_about_large_ones() -> None:
    pace = Pace(256, seconds=5.0)
    pace.took(256, 100.0)
    assert pace.took(3, 0.1) == 128
    assert Pace(2).took(2, 1e6) == 2


def test_batches_of_a_slow_tower_become_small() -> None:
    sizes: list[int] = []

    class Sizes(Watch):
        def left(self, flight: Any, share: Any, size: int) -> None:
            sizes.append(size)

    class Slow(Encoder):
        def encode(self, texts: Any, role: Any, *, timeout: float | None = None) -> Any:
            time.sleep(0.002 * len(texts))
            return super().encode(texts, role, timeout=timeout)

    source = ListSource([message(str(n), f"tower {n}", 1) for n in range(300)], batch_size=64)
    run_dense(source, Slow(), Backend(), COLLECTION, watch=Sizes(), batch_seconds=0.02)
    assert min(sizes) <= 16
    assert source.committed == 300


# ---- patience


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_follows_waits_on_and_on_and_is_told_to_stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, tries, failed = Event(), [0], []
    waiting = Waiting(ENDLESS, Event(), stop=stop)

    def away() -> None:
        tries[0] += 1
        raise Retry("away", after=60.0)

    def wait() -> None:
        try:
            waiting(away)
        except Retry as error:
            failed.append(error)

    monkeypatch.setattr("bartizan_connector.stream.patience._END_SECONDS", 0.0)
    thread = Thread(target=wait)
    thread.start()
    until(lambda: tries[0] == 1)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert (tries[0], len(failed)) == (2, 1)


def test_a_thousand_attempts_later_it_is_still_waited_for() -> None:
    slept: list[float] = []
    waiting = Waiting(Patience(attempts=10**6, seconds=1e9, sleep=slept.append), Event())

    def away() -> None:
        if len(slept) < 1_500:
            raise Retry("away")

    waiting(away)
    assert max(slept) == 20.0
