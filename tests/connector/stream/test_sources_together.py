"""A bulk load from a file and the topic that follows it: newer wins, replays never, whatever the clocks say."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.report import Report
from tests.connector.stream.faults import COLLECTION, Encoder, heads, run_dense, stored
from tests.connector.stream.topics import Topic, TopicSource

T0 = 1_700_000_000_000
"""Milliseconds."""


class Project:
    """One file and one topic, which fill one collection."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "corpus.jsonl"
        self.topic = Topic(partitions={"0": [], "1": []})
        self.backend = MemoryBackend()

    def save(self, milliseconds: int, **texts: str | None) -> None:
        """The file holds exactly these documents, and was modified then."""
        self.path.write_text("".join(record(id, text) + "\n" for id, text in texts.items()))
        os.utime(self.path, ns=(0, milliseconds * 1_000_000))

    def publish(self, milliseconds: int, partition: str = "0", **texts: str | None) -> None:
        for id, text in texts.items():
            self.topic.append(partition, record(id, text).encode(), milliseconds=milliseconds)

    def load(self, **more: Any) -> Report:
        return run_dense(JsonlSource(self.path), Encoder(), self.backend, COLLECTION, **more)

    def follow(self, *, again: bool = False, **more: Any) -> Report:
        """`again`: from the topic's beginning."""
        if again:
            self.topic.committed.clear()
        source = TopicSource(self.topic, 2)
        source.ends = True
        self.topic.assign_all(source)
        return run_dense(source, Encoder(), self.backend, COLLECTION, **more)

    @property
    def stored(self) -> dict[str, str]:
        return stored(self.backend)


def record(id: str, text: str | None) -> str:
    return json.dumps({"_id": id} | ({"_deleted": True} if text is None else {"text": text}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_load_and_then_the_topics_newer_records(project: Project) -> None:
    project.save(T0, a="loaded", b="loaded", c="loaded")
    project.publish(T0 + 5, b="news", c=None, d="news")
    project.load()
    project.follow()
    expected = {"a": "loaded", "b": "news", "d": "news"}
    assert project.stored == expected
    for again in (project.load, lambda: project.follow(again=True), project.load):
        again()
        assert project.stored == expected, "no replay of either brings anything back"


def test_records_from_before_the_load_are_old_news(project: Project) -> None:
    project.publish(T0 - 5, a="before", b="before")
    project.save(T0, a="loaded")
    project.load()
    report = project.follow()
    assert (report.stale, report.written) == (1, 1)
    assert project.stored == {"a": "loaded", "b": "before"}


def test_a_topics_clock_that_jumps_back_loses_nothing(project: Project) -> None:
    project.publish(T0, a="first", b="first")
    project.publish(T0 - 3_600_000, a="second", b=None)
    project.publish(T0 - 7_200_000, a="third")
    project.follow()
    assert project.stored == {"a": "third"}
    project.follow(again=True)
    assert project.stored == {"a": "third"}


def test_an_edited_file_counts_even_when_its_time_went_back(project: Project) -> None:
    project.save(T0, a="one", b="one")
    project.load()
    project.save(T0 - 3_600_000, a="restored", b=None)
    assert project.load().written == 1
    assert project.stored == {"a": "restored"}
    assert heads(project.backend, ["a"])["a"].version > T0 << 20, "versions grow"
    assert project.load().unchanged == 2


def test_a_restored_file_does_not_undo_what_came_from_elsewhere_since(project: Project) -> None:
    project.save(T0, a="one", b="one")
    project.load()
    project.publish(T0 + 5, a="news")
    project.follow()
    project.save(T0 - 3_600_000, a="restored", b="restored")
    report = project.load()
    assert (report.stale, report.written) == (1, 1)
    assert project.stored == {"a": "news", "b": "restored"}


def test_a_file_from_the_future_does_not_make_the_topics_news_old(project: Project) -> None:
    project.save(int(time.time() * 1000) + 365 * 86_400_000, a="loaded")
    project.load()
    time.sleep(0.005)
    project.publish(int(time.time() * 1000), a="news")
    project.follow()
    assert project.stored == {"a": "news"}
    project.load()
    assert project.stored == {"a": "news"}, "it is the same state of the same file: a replay"


def test_a_worker_whose_clock_was_ahead_does_not_make_later_news_old(project: Project) -> None:
    now = int(time.time() * 1000)
    project.publish(now, a="by the clock that was ahead")
    message = project.topic.partitions["0"][0]
    ahead = type(message)(
        position=message.position,
        value=message.value,
        version=(now + 3_600_000) << 20,
        origin=message.origin,
        offset=message.offset,
    )
    project.topic.partitions["0"] = [ahead]
    project.follow()
    project.publish(now, "1", a="news of another partition")
    project.follow()
    assert project.stored == {"a": "news of another partition"}
    project.follow(again=False)
    later = (now + 7_200_000) / 1000
    project.follow(again=True, clock=lambda: later)
    assert project.stored == {"a": "news of another partition"}


@pytest.mark.packaging
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["save", "publish", "load", "follow", "follow again"]),
            st.dictionaries(st.sampled_from("ab"), st.sampled_from(["x", "y", "z"]) | st.none(), min_size=1),
        ),
        max_size=10,
    )
)
def test_with_honest_clocks_the_newest_wins_whatever_is_read_when(
    steps: list[tuple[str, dict[str, str | None]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = Project(tmp_path_factory.mktemp("project"))
    project.save(T0)
    filed: dict[str, tuple[int, str | None]] = {}
    said: dict[str, tuple[int, str | None]] = {}
    known: dict[str, tuple[int, str | None]] = {}

    def learn(news: dict[str, tuple[int, str | None]]) -> None:
        for id, (moment, text) in news.items():
            if id not in known or moment > known[id][0]:
                known[id] = (moment, text)

    for moment, (step, texts) in enumerate(steps, start=T0 + 1):
        if step == "save":
            project.save(moment, **texts)
            filed = {id: (moment, text) for id, text in texts.items()}
        elif step == "publish":
            project.publish(moment, **texts)
            said |= {id: (moment, text) for id, text in texts.items()}
        elif step == "load":
            project.load(in_flight=2)
            learn(filed)
        else:
            project.follow(again=step == "follow again")
            learn(said)
    assert project.stored == {id: text for id, (_, text) in known.items() if text is not None}
