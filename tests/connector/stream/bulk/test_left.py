"""What a first fill by files leaves, and what the next one makes of it; what is told of either."""

import fcntl
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from bartizan_connector.base.errors import Interrupted, Retry, Stop, WrongUse
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.source import Batch
from bartizan_connector.stream.stage import Stage
from tests.connector.stream.bulk.importing import COLLECTION, InMemory, Loaded, everything, killed_at
from tests.connector.stream.filling import filled, ingested


def lines_in(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def words(*numbers: int) -> list[dict[str, Any]]:
    return [{"_id": f"d{n}", "text": f"word {n}"} for n in numbers]


def test_what_the_source_does_not_hold_any_more_is_not_loaded(backend: Loaded, folder: Path, tmp_path: Path) -> None:
    """Nor what was a line then and is a dead letter now, or has an older version of its own; all else is not encoded
    again, nor deleted by what was a deletion."""
    corpus = lines_in(
        tmp_path / "corpus.jsonl",
        *words(*range(8)),
        {"_id": "d6", "_deleted": True},
        {"_id": "d7", "_deleted": True},
        {"_id": "older", "text": "former", "_version": 9},
    )
    killed_at("load", backend, folder, corpus)
    now = [*words(0, 2, 3, 7), {"_id": "d4", "year": "none"}, {"_id": "older", "text": "now", "_version": 3}]
    report = filled(backend, COLLECTION, folder, lines_in(corpus, *now))
    assert (report.unchanged, report.written, report.stale, report.dead) == (3, 2, 0, 1)
    usual = MemoryBackend()
    ingested(usual, COLLECTION, corpus)
    assert everything(backend) == everything(usual)
    assert sorted(everything(backend)[0]) == ["d0", "d2", "d3", "d7", "older"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_killed_over_a_changed_source_counts_only_what_came_again(
    backend: Loaded, folder: Path, tmp_path: Path, times: int
) -> None:
    corpus = lines_in(tmp_path / "corpus.jsonl", *words(*range(250)))
    killed_at("load", backend, folder, corpus)
    lines_in(corpus, *words(*range(100, 300)))
    for _ in range(times):
        stop = Event()
        with pytest.raises(Stop, match="told to stop"):
            filled(backend, COLLECTION, folder, corpus, stop=stop, in_flight=1, on_batch=lambda share: stop.set())  # noqa: B023
    report = filled(backend, COLLECTION, folder, corpus)
    assert (report.unchanged, report.written) == (150, 50)
    assert sorted(everything(backend)[0]) == [f"d{n}" for n in range(100, 300)]


def test_a_source_that_is_changed_while_a_run_goes_on_with_it_is_read_again(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    killed_at("load", backend, folder, corpus)
    with pytest.raises(Stop, match="was changed while it was read"):
        filled(backend, COLLECTION, folder, corpus, on_batch=lambda share: lines_in(corpus, *words(1)))
    assert dict(backend.collections()) == {}
    assert filled(backend, COLLECTION, folder, corpus).read == 1
    assert list(everything(backend)[0]) == ["d1"]


@pytest.mark.parametrize("step", ["try", "load"])
@pytest.mark.parametrize("is_busy", [False, True])
def test_who_is_told_to_stop_while_it_loads_ends_at_once_and_says_what_is_left(
    backend: Loaded, corpus: Path, folder: Path, step: str, is_busy: bool
) -> None:
    backend.told_at, backend.is_busy = {step}, is_busy
    with pytest.raises(Stop) as ended:
        filled(backend, COLLECTION, folder, corpus, stop=backend.stop)
    when = {"try": "encoded", "load": "loaded"}[step]
    told = str(ended.value)
    assert type(ended.value) is Stop
    assert told.startswith(f"told to stop before all was {when}, so nothing of it is visible; ")
    (stage,) = folder.iterdir() if is_busy or step == "load" else [None]
    assert (f"is kept in {stage}, and the same command goes on" in told) == (step == "load")
    assert ("(docs__" in told) == is_busy
    assert dict(backend.aliases()) == {}
    assert is_busy or dict(backend.collections()) == {}

    backend.told_at, backend.is_busy = set(), False
    backend.stop.clear()
    report = filled(backend, COLLECTION, folder, corpus, stop=backend.stop)
    assert report.written == (251 if step == "try" else 0)
    assert list(backend.collections()) == list(backend.aliases().values())
    assert list(folder.iterdir()) == []


def test_ctrl_c_while_it_loads_is_told_as_such(backend: Loaded, corpus: Path, folder: Path) -> None:
    backend.fails["load"] = KeyboardInterrupt()
    with pytest.raises(Interrupted, match=r"interrupted before all was loaded, .* is kept in .*bartizan-bulk-docs-"):
        filled(backend, COLLECTION, folder, corpus)
    assert filled(backend, COLLECTION, folder, corpus).written == 0


def test_who_is_told_to_stop_while_it_waits_for_what_a_killed_run_left_ends_too(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    killed_at("load", backend, folder, corpus)
    backend.told_at = {"drop"}
    with pytest.raises(Stop, match="told to stop before all was encoded"):
        filled(backend, COLLECTION, folder, corpus, stop=backend.stop)
    assert backend.steps[-1] == "drop"


def test_a_source_of_which_nothing_can_be_stored_leaves_nothing(backend: Loaded, folder: Path, tmp_path: Path) -> None:
    corpus = lines_in(tmp_path / "corpus.jsonl", {"no": "id"}, {"_id": 1.5})
    with pytest.raises(Stop, match=r"every line of .* was refused .*no collection 'docs'.* in .*\.dead\.jsonl"):
        filled(backend, COLLECTION, folder, corpus)
    assert (dict(backend.collections()), list(folder.iterdir())) == ({}, [])
    assert "load" not in backend.steps


def test_a_source_that_was_spoilt_leaves_what_was_encoded_of_it(backend: Loaded, corpus: Path, folder: Path) -> None:
    before = corpus.read_bytes()
    killed_at("load", backend, folder, corpus)
    with pytest.raises(Stop, match="every line of"):
        filled(backend, COLLECTION, folder, lines_in(corpus, {"no": "id"}))
    corpus.write_bytes(before)
    assert filled(backend, COLLECTION, folder, corpus).unchanged > 240


def test_what_a_failed_trial_could_not_take_away_is_known_to_the_next_run(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    backend.fails["try"], backend.is_busy = Stop("it does not see that folder"), True
    with pytest.raises(Stop, match="does not see"):
        filled(backend, COLLECTION, folder, corpus)
    (stage,) = folder.iterdir()
    (trial,) = json.loads((stage / "made.json").read_text("utf-8"))
    backend.is_busy = False
    filled(backend, COLLECTION, folder, corpus)
    assert backend.dropped == [trial]
    assert list(folder.iterdir()) == []


def test_what_a_trial_left_is_taken_away_before_the_stage_goes(backend: Loaded, corpus: Path, folder: Path) -> None:
    backend.is_busy = True
    filled(backend, COLLECTION, folder, corpus)
    assert len(backend.dropped) == 1
    assert list(folder.iterdir()) == []


def test_a_stage_stays_as_long_as_only_it_knows_of_something_on_the_server(
    backend: Loaded, corpus: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend.is_busy = True
    backend.fails["drop"] = Retry("it imports still")
    assert filled(backend, COLLECTION, folder, corpus).written == 251
    assert len(list(folder.iterdir())) == 1
    assert "is still on the server (docs__" in caplog.text
    assert "The same command takes it away" in caplog.text
    assert filled(backend, COLLECTION, folder, corpus).written == 0
    assert len(set(backend.dropped)) == 1
    assert list(folder.iterdir()) == []


def test_a_stage_goes_while_nobody_else_can_have_it(
    backend: Loaded, corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.fails["try"] = Stop("it does not see that folder")
    close, locked = EmbeddedBackend.close, []
    stage = Stage(folder, COLLECTION, "here", str(corpus)).folder
    (folder / f".{stage.name}.0a1b2c3d" / "more").mkdir(parents=True)  # of a run that was killed as it went

    def closed(self: EmbeddedBackend) -> None:
        close(self)
        handle = os.open(folder, os.O_RDONLY)
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked.append(folder)
        os.close(handle)

    monkeypatch.setattr(EmbeddedBackend, "close", closed)
    for _ in range(2):
        with suppress(Stop):
            filled(backend, COLLECTION, folder, corpus)
        assert list(folder.iterdir()) == []
    assert not locked, "another may open it before it is gone"


@pytest.mark.skipif(sys.platform != "linux", reason="where a system tells of open files")
def test_a_stage_that_has_gone_holds_no_file_open(backend: Loaded, corpus: Path, folder: Path) -> None:
    filled(backend, COLLECTION, folder, corpus)
    handles = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.exists() or each.is_symlink()]
    assert [path for path in handles if str(folder) in path] == []


def test_a_source_that_holds_nothing_makes_no_collection(backend: Loaded, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop, match="holds nothing"):
        filled(backend, COLLECTION, folder, lines_in(tmp_path / "corpus.jsonl"))
    assert dict(backend.collections()) == {}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["state", "rows-9.parquet"])
def test_what_cannot_be_replaced_in_a_stage_is_told(backend: Loaded, corpus: Path, folder: Path, name: str) -> None:
    backend.fails["load"] = Stop("no room")
    with suppress(Stop):
        filled(backend, COLLECTION, folder, corpus)
    (stage,) = folder.iterdir()
    (stage / name).unlink(missing_ok=True)
    (stage / name / "more").mkdir(parents=True)
    with pytest.raises(Stop, match=re.escape(str(stage / name))):
        filled(backend, COLLECTION, folder, corpus)


def test_what_another_overtook_leaves_no_stage(
    backend: Loaded, corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InMemory, "give_name", lambda self, physical: False)
    with pytest.raises(Stop, match="meanwhile"):
        filled(backend, COLLECTION, folder, corpus)
    assert (dict(backend.collections()), list(folder.iterdir())) == ({}, [])


DAMAGED = (
    b"",
    b"{",
    b"\xff\xfe",
    b'{"docs": 1}',
    b"[1]",
    b'["docs"]',
    b'["more__0a1b2c3d"]',
    b'["docs__0a1b2c3d", ""]',
)


def test_a_damaged_list_of_what_was_made_is_refused_and_nothing_is_dropped_by_it(
    backend: Loaded, corpus: Path, folder: Path
) -> None:
    killed_at("load", backend, folder, corpus)
    (stage,), before = folder.iterdir(), dict(backend.collections())
    listed = stage / "made.json"
    for damage in DAMAGED:
        listed.write_bytes(damage)
        with pytest.raises(Stop, match=r"made\.json is damaged: .* then remove the file, and run again"):
            filled(backend, COLLECTION, folder, corpus)
        assert (backend.dropped, dict(backend.collections())) == ([], before)
    listed.unlink()
    assert filled(backend, COLLECTION, folder, corpus).written == 0


def test_stages_of_other_fills_of_the_name_are_told_and_left(
    backend: Loaded, corpus: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, more = folder / "bartizan-bulk-docs-0123456789abcdef", folder / "bartizan-bulk-docs_2-0123456789abcdef"
    for path in (other, more, folder / "bartizan-bulk-docs-notes"):
        path.mkdir()
    filled(backend, COLLECTION, folder, corpus)
    (told,) = [record.message for record in caplog.records if "another first fill" in record.message]
    assert told.startswith(f"{other} is of another first fill of 'docs'")
    assert "then remove the folder" in told
    assert len(list(folder.iterdir())) == 3


def test_who_is_told_to_stop_while_the_words_are_locked_ends_too(backend: Loaded, corpus: Path, folder: Path) -> None:
    words = WordIndex(folder.parent / "words", "docs")

    def locked(*_: Any) -> None:
        backend.stop.set()
        raise Retry("another has the words")

    words.fill_from = locked  # type: ignore[method-assign]
    with pytest.raises(Stop, match=r"^told to stop before all was loaded, .* is kept in "):
        filled(backend, COLLECTION, folder, corpus, words=words, stop=backend.stop)
    assert dict(backend.collections()) == {}


def test_a_refused_fill_keeps_what_was_encoded_and_names_it(backend: Loaded, corpus: Path, folder: Path) -> None:
    backend.fails["load"] = Stop("no room")
    with pytest.raises(Stop, match="no room"):
        filled(backend, COLLECTION, folder, corpus)
    (stage,) = folder.iterdir()
    ingested(backend, COLLECTION, corpus)
    with pytest.raises(WrongUse, match=rf"is at here already, .*encoded for it is in {re.escape(str(stage))}"):
        filled(backend, COLLECTION, folder, corpus)
    assert list(folder.iterdir()) == [stage]


def test_a_folder_that_is_swapped_and_swapped_back_leaves_nothing_of_the_other(
    backend: Loaded, folder: Path, tmp_path: Path
) -> None:
    """The links point back in the end, so that nothing of what was read tells of it."""
    current = tmp_path / "current"
    for version in ("one", "other"):
        (tmp_path / version).mkdir()
        for letter in "ab":
            lines_in(tmp_path / version / f"{letter}.jsonl", {"_id": f"{version} {letter}", "text": letter})

    def pointed_at(version: str) -> None:
        current.unlink(missing_ok=True)
        current.symlink_to(tmp_path / version)

    class Swapped(JsonlSource):
        def poll(self, timeout: float) -> Batch | None:
            batch = super().poll(timeout)
            pointed_at("other")
            return batch

    pointed_at("one")
    with pytest.raises(Stop, match=r"b\.jsonl is not what it was when this run began"):
        filled(backend, COLLECTION, folder, current, source=Swapped(current))
    pointed_at("one")
    filled(backend, COLLECTION, folder, current)
    assert sorted(everything(backend)[0]) == ["one a", "one b"]
