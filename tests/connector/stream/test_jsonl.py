"""JSON Lines files are read exactly, with constant memory, and what cannot be read is set aside."""

import base64
import json
import os
import shutil
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.stream.fence import sequence
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.source import Batch, Lasting, Message, Source
from bartizan_connector.stream.versions import latest
from bartizan_connector.testing.source import DeadLetter, Medium, SourceSuite


class JsonlMedium:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "corpus.jsonl"

    def fill(self, values: Sequence[bytes]) -> None:
        self.path.write_bytes(b"".join(value + b"\n" for value in values))

    def open(self, batch_size: int) -> Source:
        return JsonlSource(self.path, batch_size=batch_size)

    def dead_letters(self) -> Sequence[DeadLetter]:
        letters = [json.loads(line) for line in Path(JsonlSource(self.path).dead_letters).read_bytes().splitlines()]
        return [
            DeadLetter(
                position=letter["position"],
                reason=letter["reason"],
                value=letter["text"].encode() if "text" in letter else base64.b64decode(letter["base64"]),
            )
            for letter in letters
        ]


class TestJsonlSource(SourceSuite):
    def make(self, folder: Path) -> Medium:
        return JsonlMedium(folder)


def batches(source: JsonlSource) -> Iterator[Batch]:
    while (batch := source.poll(0.0)) is not None:
        yield batch


def read(source: JsonlSource) -> list[Message]:
    return [message for batch in batches(source) for message in batch.messages]


def test_a_position_names_the_file_and_the_line_and_blank_lines_are_no_messages(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"one\n\n  \ntwo")
    assert [message.position for message in read(JsonlSource(path))] == ["corpus.jsonl:1", "corpus.jsonl:4"]


def test_a_folder_is_read_in_order_of_name_without_dead_letters_of_earlier_runs(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "a.jsonl.dead.jsonl", "notes.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    source = JsonlSource(tmp_path)
    assert [message.position for message in read(source)] == ["a.jsonl:1", "b.jsonl:1"]
    assert source.dead_letters == str(tmp_path.with_name(f"{tmp_path.name}.dead.jsonl"))


def test_versions_grow_with_the_edits_of_the_file_and_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("one\ntwo\n")
    os.utime(path, ns=(0, 1_700_000_000_123_999_999))
    before = read(JsonlSource(path))
    assert [message.version for message in before] == [(1_700_000_000_123 << 20) + 1, (1_700_000_000_123 << 20) + 2]
    os.utime(path, ns=(0, 1_700_000_000_124_000_000))
    assert read(JsonlSource(path))[0].version > before[1].version


def test_the_last_millisecond_that_a_clock_can_show_still_fits_a_version() -> None:
    in_the_year_2200 = 7_289_654_400_000
    assert (in_the_year_2200 << 20) + 10**9 < 2**63


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    batch_size=st.integers(1, 5),
    limit=st.integers(1, 40),
    ended=st.booleans(),
)
def test_any_bytes_come_back_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], batch_size: int, limit: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "corpus.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if ended else b""))
    source = JsonlSource(path, batch_size=batch_size, max_line_bytes=limit)
    expected = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() or len(line) > limit]
    messages = read(source)
    assert [message.position for message in messages] == [f"corpus.jsonl:{number}" for number, _ in expected]
    for message, (_, line) in zip(messages, expected, strict=True):
        assert (message.fault is not None) == (len(line) > limit)
        assert message.fault is not None or message.value == line
        assert message.fault is None or f"has {len(line)} bytes" in message.fault


def test_an_endless_line_is_passed_over_without_being_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    size = 64 * 2**20
    with path.open("wb") as stream:
        stream.write(b"first\n")
        stream.truncate(6 + size)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\nlast\n")
    source = JsonlSource(path, max_line_bytes=2**20)
    tracemalloc.start()
    first, endless, last = read(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first.value, last.value, last.position) == (b"first", b"last", "corpus.jsonl:3")
    assert endless.fault == (
        f"the line has {size:,} bytes (from byte 6 of the file); at most 1,048,576 are read; "
        "only its beginning is kept here"
    )
    assert peak < 8 * 2**20


def test_a_batch_is_bounded_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bartizan_connector.stream.jsonl.MAX_BATCH_BYTES", 10)
    path = tmp_path / "corpus.jsonl"
    path.write_text("1234\n1234\n1234\n12345678901234\n1\n")
    lengths = [[len(message.value or b"") for message in batch.messages] for batch in batches(JsonlSource(path))]
    assert lengths == [[4, 4], [4], [14], [1]]


def test_each_run_replaces_the_dead_letters_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("one\ntwo\n")
    for _ in range(2):
        source = JsonlSource(path)
        for batch in batches(source):
            source.dead_letter(batch.messages[0], "no")
            source.commit(batch)
        source.close()
    assert Path(source.dead_letters).read_text().count("\n") == 1
    read(JsonlSource(path))
    assert Path(source.dead_letters).read_text() == ""


def test_there_is_no_dead_letter_file_when_there_are_no_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("one\n")
    source = JsonlSource(path)
    for batch in batches(source):
        source.commit(batch)
    source.close()
    assert not Path(source.dead_letters).exists()


def test_a_full_disk_under_the_dead_letters_stops_with_the_way_out(tmp_path: Path) -> None:
    path, letters = tmp_path / "corpus.jsonl", tmp_path / "dead.jsonl"
    path.write_text("one\n")
    letters.symlink_to("/dev/full")
    source = JsonlSource(path, dead_letters=letters)
    batch = next(batches(source))
    source.dead_letter(batch.messages[0], "no")
    with pytest.raises(
        Stop, match=r"cannot write the dead letters to .*dead\.jsonl: No space left on device\. Make room"
    ):
        source.commit(batch)
    with pytest.raises(Stop, match="No space left on device"):
        source.close()
    source.close()


def test_a_place_that_cannot_be_written_stops_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("one\n")
    source = JsonlSource(path, dead_letters=path / "dead.jsonl")
    with pytest.raises(Stop, match=r"set \[source\] dead_letters to another place"):
        source.dead_letter(next(batches(source)).messages[0], "no")


def test_a_missing_source_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"there is no JSON Lines file or folder at .*nowhere"):
        JsonlSource(tmp_path / "nowhere")
    with pytest.raises(WrongUse, match=r"holds no \*\.jsonl file"):
        JsonlSource(tmp_path)


def test_dead_letters_never_overwrite_the_source(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("one\n")
    (tmp_path / "other.jsonl").symlink_to(path)
    (tmp_path / "corpus.jsonl.dead.jsonl").hardlink_to(path)
    hard = tmp_path / "corpus.jsonl.dead.jsonl"
    for letters in (path, tmp_path / "other.jsonl", tmp_path / "." / "corpus.jsonl", hard, None):
        with pytest.raises(WrongUse, match="would overwrite the source"):
            JsonlSource(path, dead_letters=letters)


def test_the_backlog_counts_the_lines_that_are_left(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n2\n\n3\n")
    (tmp_path / "b.jsonl").write_text("4\n")
    source = JsonlSource(tmp_path, batch_size=2)
    left = [source.backlog(), *(source.backlog() for _ in batches(source)), source.backlog()]
    assert left == [5, 3, 1, 0, 0]
    assert source.ended


def test_a_batch_holds_lines_of_one_file_and_each_file_is_a_partition(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n2\n3\n")
    (tmp_path / "b.jsonl").write_text("4\n")
    given = [(batch.partition, len(batch.messages)) for batch in batches(JsonlSource(tmp_path, batch_size=2))]
    assert given == [("a.jsonl", 2), ("a.jsonl", 1), ("b.jsonl", 1)]


def test_a_file_from_the_future_counts_as_of_now(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("one\n")
    in_a_year = time.time() + 365 * 86_400
    os.utime(path, (in_a_year, in_a_year))
    (message,) = read(JsonlSource(path))
    assert message.version <= latest(time.time())
    (again,) = read(JsonlSource(path))
    assert (again.origin, again.offset) == (message.origin, message.offset), "the same line of the same state"


def test_the_origin_is_the_file_in_its_present_state(tmp_path: Path) -> None:
    path, copy = tmp_path / "corpus.jsonl", tmp_path / "copy.jsonl"
    path.write_text("one\n")
    (before,) = read(JsonlSource(path))
    assert read(JsonlSource(path)) == [before]
    shutil.copy2(path, copy)
    (other,) = read(JsonlSource(copy))
    assert sequence(other.origin) != sequence(before.origin)
    state = path.stat()
    path.write_text("two\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size, too
    (edited,) = read(JsonlSource(path))
    assert edited.version == before.version
    assert edited.origin != before.origin
    assert sequence(edited.origin) == sequence(before.origin)


def test_the_state_is_the_same_as_long_as_the_same_is_read(tmp_path: Path) -> None:
    folder, one = tmp_path / "docs", tmp_path / "docs" / "one.jsonl"
    folder.mkdir()
    one.write_text('{"_id": "a"}\n')
    os.utime(one, (1, 1))

    def state(max_line_bytes: int = 1000) -> str:
        source: Source = JsonlSource(folder, max_line_bytes=max_line_bytes)
        assert isinstance(source, Lasting)
        return source.state

    states = [state()]
    assert state() == states[0]
    (folder / "notes.txt").touch()
    assert state() == states[0]
    states.append(state(max_line_bytes=100))
    one.write_text('{"_id": "b"}\n')
    os.utime(one, (1, 1))
    states.append(state())
    shutil.copy2(one, folder / "aside")
    (folder / "aside").replace(one)
    states.append(state())
    (folder / "two.jsonl").write_text('{"_id": "c"}\n')
    states.append(state())
    (folder / "two.jsonl").unlink()
    states.append(state(max_line_bytes=101))
    assert len(set(states)) == len(states)


def test_dead_letters_never_replace_what_is_none(tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text('{"_id": "a", "text": "x"}\n', encoding="utf-8")
    (tmp_path / "store").write_bytes(b"SQLite format 3\x00 and more")
    (tmp_path / "bartizan.toml").write_text('[collection]\nname = "docs"\n', encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name in ("store", "bartizan.toml", "folder"):
        with pytest.raises(WrongUse, match="holds something else than dead letters"):
            JsonlSource(source, dead_letters=tmp_path / name)
    (tmp_path / "link").hardlink_to(source)
    with pytest.raises(WrongUse, match="would overwrite the source"):
        JsonlSource(source, dead_letters=tmp_path / "link")
    assert source.read_text(encoding="utf-8")
