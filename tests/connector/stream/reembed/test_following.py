"""Retrievers while a collection changes its towers: one stays in its space, one follows, none mixes."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.documents.reembed import Towers
from bartizan_connector.search.following import FollowingRetriever
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.settings import BackendSettings
from tests.connector.stream.reembed.cycle import filled, run, swap, wait


def test_a_retriever_that_is_open_stays_in_its_space_and_one_that_is_opened_is_told(tmp_path: Path) -> None:
    both = filled(tmp_path)
    with Retriever.open(both.old) as pinned:
        assert pinned.search("oak").space_id == both.spaces["old"]
        run(both)
        swap(both)
        assert pinned.search("oak").space_id == both.spaces["old"]
        with Retriever.open(both.old) as late, pytest.raises(SpaceMismatch, match="reembed rollback"):
            late.search("oak")
        with Retriever.open(both.new) as fresh:
            assert fresh.search("oak").space_id == both.spaces["new"]


def test_a_retriever_that_follows_goes_on_when_the_former_collection_is_dropped(tmp_path: Path) -> None:
    both = filled(tmp_path)
    run(both)
    with FollowingRetriever.open([both.old, both.new], every=1000) as retriever:
        assert retriever.search("oak").space_id == both.spaces["old"]
        swap(both)
        assert retriever.search("oak").space_id == both.spaces["old"]
        with Towers.opened(both.new) as towers:
            towers.reembedding.drop()
        answer = retriever.search("oak elm")
        assert answer.space_id == both.spaces["new"]
        assert both.mixing("oak elm", answer) == []


def test_a_retriever_that_follows_wants_a_configuration_that_fits(tmp_path: Path) -> None:
    both = filled(tmp_path)
    with pytest.raises(SpaceMismatch):
        FollowingRetriever.open([both.new])
    with pytest.raises(WrongUse, match="no configuration"):
        FollowingRetriever.open([])
    other = both.new.model_copy(update={"backend": BackendSettings(uri=str(tmp_path / "other"))})
    with pytest.raises(WrongUse, match="one collection"):
        FollowingRetriever.open([both.old, other])


async def test_a_retriever_that_follows_is_awaited_too(tmp_path: Path) -> None:
    both = filled(tmp_path)
    run(both)
    with FollowingRetriever.open([both.old, both.new], every=0.01) as retriever:
        assert (await retriever.asearch("oak")).space_id == both.spaces["old"]
        swap(both)
        wait(lambda: retriever.collection.legs[0].space_id == both.spaces["new"])
        assert (await retriever.asearch("oak")).space_id == both.spaces["new"]
        with pytest.raises(WrongUse, match="empty"):
            await retriever.asearch("")
    with pytest.raises(WrongUse, match="closed"):
        retriever.search("oak")


async def test_queries_look_at_the_name_only_when_their_collection_is_gone_and_within_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = filled(tmp_path)
    run(both)
    looks, held = Counter[str](), threading.Event()
    held.set()
    aliases = MemoryBackend.aliases

    def counted(backend: MemoryBackend) -> Any:
        if threading.current_thread().name == "bartizan-lookout":
            looks["looks"] += 1
            assert held.wait(20)
        else:
            looks["elsewhere"] += 1
        return aliases(backend)

    with FollowingRetriever.open([both.old, both.new], every=1000) as retriever:
        monkeypatch.setattr(MemoryBackend, "aliases", counted)
        for _ in range(5):
            retriever.search("oak")
            await retriever.asearch("oak")
        assert not looks
        monkeypatch.setattr(MemoryBackend, "aliases", aliases)
        swap(both)
        with Towers.opened(both.new) as towers:
            towers.reembedding.drop()
        monkeypatch.setattr(MemoryBackend, "aliases", counted)
        held.clear()
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(SpaceMismatch):
                retriever.search("oak", timeout=0.3)
            with pytest.raises(SpaceMismatch):
                await retriever.asearch("oak", timeout=0.3)
            assert time.monotonic() - began < 2
        held.set()
        assert (await retriever.asearch("oak")).space_id == both.spaces["new"]
        assert retriever.search("oak").space_id == both.spaces["new"]
        assert set(looks) == {"looks"}
    with pytest.raises(WrongUse, match="every"):
        FollowingRetriever.open([both.new], every=0)


def test_a_tower_that_fails_is_no_reason_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = filled(tmp_path)
    with FollowingRetriever.open([both.old], every=1000) as retriever:
        looked = retriever._lookout.now
        asked = Counter[str]()

        def now() -> Any:
            asked["now"] += 1
            return looked()

        monkeypatch.setattr(retriever._lookout, "now", now)

        monkeypatch.setattr(both.old_tower, "encode", _broken)
        with pytest.raises(Stop, match="broken"):
            retriever.search("oak")
    assert not asked


def test_a_query_that_is_under_way_ends_though_its_retriever_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = filled(tmp_path, backend=BackendSettings(uri=str(tmp_path / "index.bartizan")))
    retriever = FollowingRetriever.open([both.old])
    begun, go_on = threading.Event(), threading.Event()
    encode = both.old_tower.encode

    def slow(*words: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return encode(*words, **options)

    monkeypatch.setattr(both.old_tower, "encode", slow)
    with ThreadPoolExecutor(1) as reader:
        answer = reader.submit(retriever.search, "oak")
        assert begun.wait(20)
        retriever.close()
        go_on.set()
        assert len(answer.result().results) == 10
    with pytest.raises(WrongUse, match="closed"):
        retriever.search("oak")


def test_a_retriever_follows_when_the_new_towers_answer_and_says_so_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = filled(tmp_path)
    run(both)
    with FollowingRetriever.open([both.old, both.new], every=1000) as retriever:
        swap(both)
        with monkeypatch.context() as broken:
            broken.setattr(both.new_tower, "encode", _broken)
            for _ in range(3):
                retriever._lookout.now().result(20)
                assert retriever.search("oak").space_id == both.spaces["old"]
            assert "no dense leg: the tower is broken" in retriever.behind
            assert [record.message for record in caplog.records if "as it was opened" in record.message] == [
                f"'docs' is searched as it was opened: {retriever.behind}"
            ]
        retriever._lookout.now().result(20)
        assert retriever.search("oak").space_id == both.spaces["new"]
        assert not retriever.behind


def test_a_retriever_leaves_what_answers_no_more_whatever_the_new_towers_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = filled(tmp_path)
    run(both)
    with FollowingRetriever.open([both.old, both.new], every=1000) as retriever:
        swap(both)
        with Towers.opened(both.new) as towers:
            towers.reembedding.drop()
        monkeypatch.setattr(both.new_tower, "encode", _broken)
        with pytest.raises(Stop, match="the tower is broken"):
            retriever.search("oak")


def test_what_did_not_answer_yet_is_left_when_the_name_moves_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = filled(tmp_path, backend=BackendSettings(uri=str(tmp_path / "index.bartizan")))
    run(both)
    with FollowingRetriever.open([both.old, both.new], every=1000) as retriever:
        swap(both)
        monkeypatch.setattr(both.new_tower, "encode", _broken)
        retriever._lookout.now().result(20)
        assert retriever._unclosed == 2
        retriever._backend.point("docs", retriever._current.physical)
        retriever._lookout.now().result(20)
        assert (retriever._unclosed, retriever.behind) == (1, "")
        assert retriever.search("oak").space_id == both.spaces["old"]


def test_a_tower_that_turns_out_to_be_of_another_space_is_a_reason_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = filled(tmp_path)
    run(both)
    with FollowingRetriever.open([both.old, both.new], every=1000) as retriever:
        swap(both)

        def swapped(*_: Any, **__: Any) -> Any:  # as a server says whose alias serves another tower by now
            raise SpaceMismatch("the tower", expected=both.spaces["old"], came=both.spaces["new"], way_out="look again")

        monkeypatch.setattr(both.old_tower, "encode", swapped)
        assert retriever.search("oak").space_id == both.spaces["new"]


def _broken(*_: Any, **__: Any) -> Any:
    raise Stop("the tower is broken")
