"""What a search opens and when, that opening counts into the deadline, and that closing closes everything."""

import asyncio
import re
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.search.lazy import Lazy
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.search.words.ownership import OWNER_FILE
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.configured import Log, configured, rows, towers, unreachable

QUERY = "copy a file"


def test_nothing_is_opened_before_it_is_needed_and_nothing_twice(tmp_path: Path) -> None:
    log = Log()
    with Retriever.open(configured(tmp_path, towers(), log, words=True)) as opened:
        assert opened.search(QUERY, legs=["lexical"])[0].id == "copy"
        assert log.events == []
        assert opened.search(QUERY, legs=["terms"])[0].id == "copy"
        assert log.events == ["open terms", "open backend", "open store"]
        first = opened.search(QUERY)
        opened.search(QUERY)
        assert sorted(log.events) == ["open backend", "open dense", "open other", "open store", "open terms"]
        assert first.degraded is None
        assert 0 < first.latency_ms.open < first.latency_ms.total


async def test_many_who_need_it_at_once_open_it_once(tmp_path: Path) -> None:
    log = Log(seconds={"dense": 0.2, "store": 0.2})
    with Retriever.open(configured(tmp_path, {"dense": HashEncoder()}, log)) as opened:
        answers = await asyncio.gather(*(opened.asearch(QUERY) for _ in range(6)))
    assert {answer[0].id for answer in answers} == {"copy"}
    assert [event for event in log.events if event.startswith("open")] == ["open dense", "open backend", "open store"]
    assert log.still_open() == []


def test_closing_closes_everything_and_twice_is_fine(tmp_path: Path) -> None:
    log = Log()
    opened = Retriever.open(configured(tmp_path, towers(), log, words=True))
    opened.search(QUERY)
    opened.close()
    assert log.still_open() == []
    assert log.events.index("close store") < log.events.index("close backend")
    events = list(log.events)
    opened.close()
    assert log.events == events
    with pytest.raises(WrongUse, match="closed"):
        opened.search(QUERY)


def test_what_was_given_is_closed_too() -> None:
    closed = []

    class Closing(HashEncoder):
        def close(self) -> None:
            closed.append("encoder")

    class Words(WordIndex):
        def close(self) -> None:
            closed.append("words")

    from tests.connector.search.test_retriever import filled

    encoder = Closing()
    store = filled(encoder)
    store.close = lambda: closed.append("store")  # type: ignore[method-assign]
    opened = Retriever({"dense": encoder}, store, words=Words(Path("nowhere"), "docs"))
    opened.close()
    opened.close()
    assert sorted(closed) == ["encoder", "store", "words"]


@pytest.mark.parametrize("what", ["dense", "backend", "store"])
def test_what_cannot_be_opened_costs_its_leg_only_and_is_opened_by_a_later_search(tmp_path: Path, what: str) -> None:
    log = Log(failures={what: unreachable(what)})
    opened = Retriever.open(configured(tmp_path, {"dense": HashEncoder()}, log, words=True))
    answer = opened.search(QUERY)
    assert (answer[0].id, set(answer[0].legs)) == ("copy", {"lexical"})
    assert answer.degraded == f"no dense leg: {what} does not answer"
    with pytest.raises(Retry, match=f"{what} does not answer"):
        opened.search(QUERY, legs=["dense"])
    log.failures.clear()
    assert opened.search(QUERY).degraded is None
    opened.close()
    assert log.still_open() == []


def test_closing_after_a_failed_opening_leaves_nothing_open(tmp_path: Path) -> None:
    log = Log(failures={"store": unreachable("store")})
    opened = Retriever.open(configured(tmp_path, {"dense": HashEncoder()}, log))
    with pytest.raises(Retry, match="store does not answer"):
        opened.search(QUERY)
    assert log.still_open() == ["dense"]
    opened.close()
    assert log.still_open() == []


@pytest.mark.packaging
@pytest.mark.parametrize("what", ["dense", "backend"])
def test_opening_counts_into_the_deadline(tmp_path: Path, what: str) -> None:
    log = Log(seconds={what: 3.0})
    opened = Retriever.open(configured(tmp_path, {"dense": HashEncoder()}, log, words=True))
    begun = time.perf_counter()
    answer = opened.search(QUERY, timeout=0.4)
    assert time.perf_counter() - begun < 1.4
    assert answer.degraded == "no dense leg: the dense leg had not answered by the deadline (it was still being opened)"
    with pytest.raises(Retry, match="still being opened"):
        opened.search(QUERY, legs=["dense"], timeout=0.1)
    begun = time.perf_counter()
    opened.close()
    assert time.perf_counter() - begun < 1.0, "closing does not wait for what is being opened"
    while log.still_open() or f"open {what}" not in log.events:  # it is closed once it is open
        assert time.perf_counter() - begun < 30
        time.sleep(0.02)


def test_towers_that_do_not_belong_together_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    log = Log()
    config = configured(tmp_path, towers(), log)
    stranger = HashEncoder(seed=9).spec
    (tmp_path / "stranger").mkdir()
    stranger.write(tmp_path / "stranger")
    space = config.spaces["other"].model_copy(update={"query_tower": tmp_path / "stranger"})
    with pytest.raises(SpaceMismatch, match=r"do not belong together.*\[spaces\.other\]"):
        Retriever.open(config.model_copy(update={"spaces": {**config.spaces, "other": space}}))
    assert log.events == []


def test_a_tower_for_documents_only_cannot_be_the_query_tower(tmp_path: Path) -> None:
    encoder = HashEncoder()
    roles = {"document": encoder.spec.roles["document"]}
    encoder.spec = TowerSpec.model_validate(encoder.spec.model_dump() | {"roles": roles})
    log = Log()
    config = configured(tmp_path, {"dense": encoder}, log)
    with pytest.raises(WrongUse, match="encodes document only, but was asked for query vectors"):
        Retriever.open(config)
    assert log.events == []


def test_a_word_index_that_must_be_rebuilt_costs_its_leg_only(tmp_path: Path) -> None:
    config = configured(tmp_path, towers(), words=True)
    (tmp_path / "words" / OWNER_FILE).unlink()
    with Retriever.open(config) as opened:
        answer = opened.search(QUERY)
        assert answer[0].id == "copy"
        assert str(answer.degraded).startswith("no lexical leg: the word index in ")
        assert "Set [backend] lexical to a new folder and ingest again" in str(answer.degraded)
        with pytest.raises(Stop, match=r"Set \[backend\] lexical to a new folder"):
            opened.search(QUERY, legs=["lexical"])
        for path in (tmp_path / "words").iterdir():
            path.unlink()
        index = WordIndex(tmp_path / "words", "docs")
        index.upsert(rows({}))
        index.close()
        assert opened.search(QUERY).degraded is None, "it was made anew"


def test_a_word_index_of_another_collection_is_refused_at_once(tmp_path: Path) -> None:
    config = configured(tmp_path, towers(), words=True)
    (tmp_path / "words" / OWNER_FILE).write_text('{"collection": "news"}')
    with pytest.raises(WrongUse, match="belongs to collection 'news'"):
        Retriever.open(config)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_tower_that_cannot_be_read_costs_its_leg_only(tmp_path: Path, damage: str) -> None:
    config = configured(tmp_path, towers(), words=True)
    for name in ("dense", "other", "terms"):
        spec = tmp_path / "towers" / name / "tower.json"
        content = spec.read_bytes()
        spec.unlink() if damage == "missing" else spec.write_text("{}")
        with Retriever.open(config) as opened:
            answer = opened.search(QUERY)
            assert answer[0].id == "copy"
            assert set(answer.latency_ms.legs) - set(answer[0].legs) >= {name}
            assert re.match(rf"no {name} leg: .*{name}.*tower", str(answer.degraded))
            with pytest.raises(Stop, match=r"tower"):
                opened.search(QUERY, legs=[name])
        if name != "terms":
            spec.write_bytes(content)
    for name in ("dense", "other"):
        (tmp_path / "towers" / name / "tower.json").write_text("{}")
    with Retriever.open(config) as opened:
        answer = opened.search(QUERY, filter="title == 'copy'")
        assert (answer[0].id, set(answer[0].legs)) == ("copy", {"lexical"})
    without = config.model_copy(update={"backend": config.backend.model_copy(update={"lexical": None})})
    with pytest.raises(Stop, match="tower"):
        Retriever.open(without)


def test_what_is_in_use_is_closed_by_its_last_user() -> None:
    closed: list[str] = []
    lazy = Lazy.opened("value", lambda: closed.append("closed"))
    inside, go_on = Event(), Event()

    def use() -> None:
        with lazy.use():
            inside.set()
            go_on.wait(60)

    user = Thread(target=use)
    user.start()
    assert inside.wait(60)
    lazy.close()
    assert closed == []
    with pytest.raises(WrongUse, match="closed"), lazy.use():
        pass
    go_on.set()
    user.join(60)
    assert closed == ["closed"]
