"""Dead letters in a file: given again they end where they would have, had they never been refused."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.stream.letter_file import FiledLetters, LetterFile
from bartizan_connector.stream.letters import Letter, chooser
from bartizan_connector.stream.replay import foreseen, replay
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.versions import stamp
from tests.connector.stream.faults import COLLECTION, Backend, Encoder, run_dense, stored
from tests.connector.stream.streams import ListSource

BAD = "cherry"
"""What the store refuses until it is mended."""


class Log(ListSource):
    """A partition whose dead letters go to a file, as those of JSON lines do."""

    def __init__(self, messages: list[Message], path: Path) -> None:
        super().__init__(messages)
        self._file = LetterFile(path)

    def commit(self, batch: Batch) -> None:
        super().commit(batch)
        self._file.sync()

    def dead_letter(self, message: Message, reason: str) -> None:
        self._file.add(message, reason)

    def close(self) -> None:
        self._file.close()


class World:
    """A log, what is stored of it, and the letters."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "dead.jsonl"
        self.path.unlink(missing_ok=True)
        self.backend = Backend()
        self.backend.refused = frozenset({BAD})
        self.model: dict[str, str] = {}
        self.state = 1
        self._count = 0

    def change(self, id: str, text: str | None) -> None:
        self.take([self.message(id, text)])

    def message(self, id: str, text: str | None) -> Message:
        self._count += 1
        self.model.pop(id, None)
        if text is not None:
            self.model[id] = text
        return Message(
            position=f"log:{self._count}",
            value=None if text is None else json.dumps({"text": text}).encode(),
            key=id,
            version=stamp(1_000 * self._count),
            origin=f"log#{self.state}",
            offset=self._count,
        )

    def take(self, messages: list[Message]) -> Report:
        with closing(Log(messages, self.path)) as log:
            return run_dense(log, Encoder(), self.backend, COLLECTION)

    def mend(self) -> None:
        self.backend.refused = frozenset()

    def replay(self, **chosen: Any) -> Report:
        """Foreseen first."""
        box = FiledLetters(self.path)
        with closing(self.backend.open(COLLECTION)) as store:
            told = foreseen(box, chooser(**chosen), store)
            before = self.path.read_bytes() if self.path.exists() else b""
            report = replay(box, chooser(**chosen), store, {"dense": Encoder()})
        if not self.backend.refused:
            counts = ("read", "written", "unchanged", "stale", "deleted", "dead")
            assert [getattr(told, name) for name in counts] == [getattr(report, name) for name in counts]
        if not report.read:
            assert not before or before == self.path.read_bytes()
        return report

    @property
    def letters(self) -> list[Letter]:
        return list(FiledLetters(self.path).letters())


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(("apple", BAD, BAD)) | st.none())
    | st.sampled_from(("replay", "mend", "made again")),
    max_size=12,
)


@pytest.mark.packaging
@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_however_late_it_is_given_again_the_end_is_what_the_log_says(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    for step in steps:
        if step == "replay":
            world.replay()
        elif step == "mend":
            world.mend()
        elif step == "made again":
            world.state += 1
        else:
            world.change(*step)
    world.mend()
    assert world.replay().dead == 0
    assert stored(world.backend) == world.model
    assert world.letters == []
    assert world.replay().read == 0


def test_a_newer_update_and_a_delete_that_came_meanwhile_stay(tmp_path: Path) -> None:
    world = World(tmp_path)
    for id in ("updated", "deleted", "left"):
        world.change(id, BAD)
    world.change("updated", "apple")
    world.change("deleted", None)
    world.mend()
    report = world.replay()
    assert (report.read, report.written, report.stale) == (3, 1, 2)
    assert stored(world.backend) == {"updated": "apple", "left": BAD}


def test_what_is_refused_again_is_listed_with_the_reason_of_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.take([world.message("a", BAD), world.message("b", BAD)])
    (first, second) = world.letters
    assert (first.id, first.source, first.reason) == ("a", "log:1", "the store refuses it")
    assert first.time is not None
    box = FiledLetters(world.path)
    world.mend()
    with closing(world.backend.open(COLLECTION)) as store:
        assert replay(box, chooser(ids=["b"]), store, {"dense": Encoder(poison=BAD)}).dead == 1
    assert [(letter.id, letter.reason) for letter in world.letters] == [
        ("a", "the store refuses it"),
        ("b", "this text cannot be encoded"),
    ]
    assert world.letters[1].message.version == second.message.version
    assert world.replay(reasons=["cannot be encoded"]).written == 1
    assert [letter.id for letter in world.letters] == ["a"]
    assert world.replay(since=first.time + 60).read == 0


def test_a_line_that_was_too_long_to_keep_is_never_taken_for_a_document(tmp_path: Path) -> None:
    world = World(tmp_path)
    cut = Message(position="log:1", value=b'{"_id": "a", "text": "one"}', version=1, fault="the line has 99 bytes")
    world.take([cut])
    assert world.replay().dead == 1
    assert stored(world.backend) == {}
    assert [letter.reason for letter in world.letters] == ["the line has 99 bytes"]


def test_bytes_that_are_no_text_and_keys_come_back_as_they_were(tmp_path: Path) -> None:
    file = LetterFile(tmp_path / "dead.jsonl")
    given = [
        Message(position="a:1", value=b"caf\xe9", key="k", version=7, origin="o#1", offset=3),
        Message(position="a:2", value="ü \u2028".encode(), version=8, origin="o#1", offset=4),
        Message(position="a:3", value=None, key="k", version=9),
    ]
    for message in given:
        file.add(message, "no")
    file.close()
    found = [letter.message for letter in FiledLetters(file.path).letters()]
    facts = ("value", "key", "version", "origin", "offset", "late", "fault")
    assert [[getattr(each, name) for name in facts] for each in found] == [
        [*(getattr(each, name) for name in facts[:5]), True, None] for each in given
    ]


def test_letters_of_0_1_0_are_placed_by_their_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    told = {"position": "corpus.jsonl:1", "reason": "no", "version": 5, "text": '{"_id": "a", "text": "apple"}'}
    world.path.write_text(json.dumps(told) + "\n")
    assert world.replay().written == 1
    assert stored(world.backend) == {"a": "apple"}
    assert world.path.read_bytes() == b""


def test_a_file_that_was_changed_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.change("a", BAD)
    world.mend()
    box = FiledLetters(world.path)

    def changed(report: Report) -> None:
        with world.path.open("ab") as file:
            file.write(b'{"position": "x", "reason": "y", "version": 1, "text": "{}"}\n')

    with (
        closing(world.backend.open(COLLECTION)) as store,
        pytest.raises(Stop, match=r"was changed by somebody else meanwhile and stays as it is"),
    ):
        replay(box, chooser(), store, {"dense": Encoder()}, on_batch=changed)
    assert len(world.letters) == 2


def test_what_holds_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.jsonl"
    other.write_text('{"a": 1}\n')
    with pytest.raises(WrongUse, match="holds something else than dead letters"):
        FiledLetters(other)
    other.write_text('{"position": "x", "reason": "y", "version": 1}\nnot json\n')
    with pytest.raises(Stop, match=r"line 2 of .* is no dead letter"):
        list(FiledLetters(other).letters())
    assert list(FiledLetters(tmp_path / "nowhere").letters()) == []
