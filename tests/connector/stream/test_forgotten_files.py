"""Files are read again from where a server had sealed what it got, when it was killed and has forgotten the rest."""

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from pymilvus import MilvusException

from bartizan_connector.base.errors import BartizanError, Stop
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Backend as AnyBackend
from bartizan_connector.store.backend import Store
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream import unsealed
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.patience import ENDLESS
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Batch
from tests.connector.stream.faults import COLLECTION, Encoder, run_dense, stored
from tests.connector.stream.forgetting import Forgetful, forget_rows, killed
from tests.connector.stream.kafka.media import wait_for
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
LINES = [json.dumps({"_id": f"d{number}", "text": f"text {number}"}) for number in range(8)]


def ingest(path: Path, backend: AnyBackend, batch_size: int = 2) -> Report:
    with closing(JsonlSource(path, batch_size=batch_size)) as source:
        return run_dense(source, Encoder(), backend, COLLECTION)


def letters(path: Path) -> list[tuple[str, str]]:
    """(position, reason) of each."""
    aside = Path(JsonlSource(path).dead_letters)
    told = [json.loads(line) for line in aside.read_text().splitlines()] if aside.exists() else []
    return [(each["position"], each["reason"]) for each in told]


@pytest.mark.parametrize("rows_only", [False, True], ids=["heads too", "rows"])
def test_what_a_server_forgets_during_the_run_is_read_again(tmp_path: Path, *, rows_only: bool) -> None:
    path, backend = tmp_path / "docs.jsonl", Forgetful()
    path.write_text("\n".join(LINES))
    backend.at_write = {3: lambda: backend.restart(rows_only=rows_only)}
    report = ingest(path, backend)
    assert stored(backend) == {f"d{number}": f"text {number}" for number in range(8)}
    assert report.read > len(LINES)
    backend.restart()
    assert stored(backend) == {f"d{number}": f"text {number}" for number in range(8)}


def test_only_what_was_not_sealed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 0.0)
    path, backend = tmp_path / "docs.jsonl", Forgetful()
    path.write_text("\n".join(LINES))
    commits: list[int] = []

    class Watched(JsonlSource):
        def commit(self, batch: Batch) -> None:
            super().commit(batch)
            commits.append(batch.messages[-1].offset)

        def give_again(self, partition: str) -> None:
            given.append(commits[-1])
            super().give_again(partition)

        def poll(self, timeout: float) -> Batch | None:
            batch = super().poll(timeout)
            if batch is not None and batch.generation:
                again.extend(message.offset for message in batch.messages if message.doubtful)
            return batch

    given: list[int] = []
    again: list[int] = []
    backend.seals = [lambda: None, lambda: None, backend.restart]
    with closing(Watched(path, batch_size=1)) as source:
        run_dense(source, Encoder(), backend, COLLECTION)
    assert len(stored(backend)) == len(LINES)
    (place,) = given
    assert place > 0
    assert again == list(range(place + 1, place + 1 + len(again)))
    assert again


def test_a_file_that_changed_meanwhile_is_not_gone_on_with(tmp_path: Path) -> None:
    path, backend = tmp_path / "docs.jsonl", Forgetful()
    path.write_text("\n".join(LINES))

    def meanwhile() -> None:
        path.write_text("\n".join(reversed(LINES)))
        backend.restart()

    backend.at_write = {2: meanwhile}
    told = r"docs\.jsonl is not what it was when this run began; .* Run again\. The server may have forgotten some"
    with pytest.raises(Stop, match=told):
        ingest(path, backend)
    ingest(path, backend)
    assert len(stored(backend)) == len(LINES)


def test_a_run_that_fails_says_what_a_server_may_have_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, backend = tmp_path / "docs.jsonl", Forgetful()
    path.write_text("\n".join(LINES))

    class Broken(Encoder):
        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            if "text 7" in texts[0]:
                wait_for(lambda: backend.writes > 2)
                backend.restart()
                raise Stop("the tower is broken")
            return super().encode(texts, role, timeout=timeout)

    with closing(JsonlSource(path, batch_size=1)) as source, pytest.raises(Stop, match="the tower is broken"):
        run_dense(source, Broken(), backend, COLLECTION)
    assert "it was started again: a topic's worker reads it again in the next run; after files, look" in caplog.text
    assert "is read again" not in caplog.text


def test_a_run_that_breaks_off_says_what_is_not_sealed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, backend = tmp_path / "docs.jsonl", Forgetful()
    path.write_text("\n".join(LINES))
    backend.at_write = {3: killed}
    with closing(JsonlSource(path, batch_size=1)) as source, pytest.raises(Stop, match="killed"):
        run_dense(source, Encoder(), backend, COLLECTION)
    assert "what was written last is not known to be sealed: a topic's worker reads it again" in caplog.text


def test_lines_that_are_set_aside_are_set_aside_once_and_a_file_of_nothing_else_is_told(tmp_path: Path) -> None:
    path, backend = tmp_path / "docs.jsonl", Forgetful()
    path.write_text("\n".join(["junk", *LINES[:3], '{"_id": 7', *LINES[3:]]))
    backend.at_write = {4: backend.restart}
    ingest(path, backend)
    assert [position for position, _ in letters(path)] == ["docs.jsonl:1", "docs.jsonl:5"]
    with closing(JsonlSource(path, batch_size=3)) as source:
        _all_refused(source)
        source.give_again("docs.jsonl")
        _all_refused(source)
        verdict = source.verdict() or ""
        assert verdict.startswith(f"every line of {path} was refused (10), the first because: no")
    assert len(letters(path)) == 10


def _all_refused(source: JsonlSource) -> None:
    while (batch := source.poll(0.0)) is not None:
        for message in batch.messages:
            source.dead_letter(message, "no")


def _world(seed: int, folder: Path) -> None:
    """Files with ids in common, some lines that are none, and a server that forgets again and again."""
    dice = random.Random(seed)
    folder.mkdir()
    for number in range(dice.randrange(1, 4)):
        path = folder / f"{number}.jsonl"
        path.write_text("\n".join(_line(dice) for _ in range(dice.randrange(1, 12))))
        os.utime(path, (1 + number, 1 + number))  # files of one millisecond are newer by who is read first
    plain, backend = MemoryBackend(), Forgetful()
    ingest(folder, plain)
    expected = letters(folder)
    backend.open(COLLECTION)
    for _ in range(dice.randrange(4)):
        backend.at_write[dice.randrange(1, 40)] = lambda: backend.restart(dice)
    backend.seals = _seals(backend, dice)
    ingest(folder, backend, dice.randrange(1, 5))
    assert stored(backend) == stored(plain)
    assert sorted(letters(folder)) == sorted(expected)
    backend.restart()
    assert stored(backend) == stored(plain), "what is committed is not sealed"


def _line(dice: random.Random) -> str:
    if dice.random() < 0.1:
        return dice.choice(["junk", "", '{"text": "without id"}'])
    id = f"d{dice.randrange(6)}"
    return json.dumps({"_id": id} | dice.choice([{"_deleted": True}, {"text": "apple"}, {"text": "banana"}]))


def _seals(backend: Forgetful, dice: random.Random) -> list[Callable[[], None]]:
    deeds: Sequence[Callable[[], None]] = [lambda: backend.restart(dice), lambda: None]
    return [dice.choice(deeds) for _ in range(dice.randrange(4))]


@pytest.mark.packaging
def test_whatever_is_forgotten_all_that_the_files_say_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "_LONGEST_SECONDS", 0.0)
    for seed in random.sample(range(10**6), 25):
        try:
            _world(seed, tmp_path / str(seed))
        except BaseException:
            print(f"seed {seed}")
            raise


class _Gated(JsonlSource):
    """Gives the first four lines, and the rest when it may."""

    def __init__(self, path: Path, *, batch_size: int) -> None:
        super().__init__(path, batch_size=batch_size)
        self.gate = Event()

    def poll(self, timeout: float) -> Batch | None:
        if self._readings["docs.jsonl"].farthest == 4 and not self.gate.is_set():
            time.sleep(timeout)
            return None
        return super().poll(timeout)


@pytest.mark.server
def test_rows_that_a_killed_server_forgot_are_written_again_though_their_heads_stand(
    milvus: MilvusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LONGEST_SECONDS", "_RESTS_SECONDS"):
        monkeypatch.setattr(unsealed, name, 600.0)  # the end of the run is the first that is sealed
    path, collection = tmp_path / "docs.jsonl", COLLECTION.model_copy(update={"name": "forgotten_files"})
    path.write_text("\n".join(LINES))
    ids = [f"d{number}" for number in range(len(LINES))]
    with (
        closing(MilvusBackend(milvus.uri, consistency="Strong", index="flat", timeout=10.0)) as backend,
        closing(_Gated(path, batch_size=2)) as source,
        ThreadPoolExecutor(1) as thread,
    ):
        try:
            running = thread.submit(run_dense, source, Encoder(), backend, collection, patience=ENDLESS)
            wait_for(lambda: collection.name in backend.aliases(), 60)
            store = backend.open(collection, create=False)
            wait_for(lambda: len(store.get(ids)) == 4, 60)
            milvus.kill()
            milvus.start()
            wait_for(lambda: _has_forgotten(milvus.uri, store, ids[:4]), 60)
        finally:
            source.gate.set()
        report = running.result(120)
        assert len(store.heads(ids)) == len(store.get(ids)) == len(LINES)
        assert report.read > len(LINES)
        store.close()
        backend.drop(collection.name)


def _has_forgotten(uri: str, store: Store, ids: Sequence[str]) -> bool:
    try:
        forget_rows(uri, store, ids)
    except (BartizanError, MilvusException, AssertionError):  # it is on its way up
        return False
    return True
