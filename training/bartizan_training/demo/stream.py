"""The demo's stream: a broker, a store and a worker on this machine, edits to the corpus, and when each is found."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from bartizan_connector.base.errors import Retry, Stop, WrongUse, interruptible
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of, open_encoders
from bartizan_training.demo import corpus as corpora
from bartizan_training.demo.layout import Layout
from bartizan_training.demo.live import Live
from bartizan_training.demo.servers import milvus
from bartizan_training.demo.servers.kafka import Broker, require
from bartizan_training.demo.shell import Shell
from bartizan_training.demo.steps import MAX_TOKENS

_PARTITIONS = 3
_EVERYTHING = 2_000
_DOCUMENTS = 300
_PATIENT = 120.0
_WORDS = "what it said stands in worker.log in the demo's folder"
_CONFIG = """\
# What the worker of `bartizan demo-stream` reads.
[collection]
name = "python_library_live"
fields = [{{ name = "module", type = "string" }}, {{ name = "kind", type = "string" }}]

[spaces.dense]
document_tower = {document}
query_tower = {query}

[backend]
uri = {uri}
consistency = "Strong"       # a search sees whatever was written before it began

[source]
kind = "kafka"
bootstrap = "{bootstrap}"
topic = "{topic}"
group = "bartizan-demo"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDemo:
    """What the user chose."""

    out: Path
    demo: Path
    jars: Path
    edits: int
    seconds: float
    rate: float
    seed: int = 0

    def run(self) -> None:
        """From a broker to a summary; every process that was started has ended then."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was begun is ended then too
        require(self.jars)  # what is missing is said before anything is begun
        shell, layout = Shell(), Layout(self.out)
        layout.clear({"stream": True})
        with interruptible("the processes of the demo have ended; run it again whenever you like"), ExitStack() as on:
            document, query = self._towers(shell, layout)
            shell.step("Processes of this machine: an Apache Kafka broker, a store, a worker")
            broker = Broker(self.out / "kafka", self.jars)
            on.callback(broker.stop)
            broker.start()
            topic = broker.topic(_PARTITIONS)
            shell.say(f"broker at {broker.bootstrap}, topic {topic} in {_PARTITIONS} partitions")
            uri = on.enter_context(_store(shell, self.out))
            layout.config.write_text(
                _CONFIG.format(
                    document=json.dumps(os.path.relpath(document, self.out)),
                    query=json.dumps(os.path.relpath(query, self.out)),
                    uri=json.dumps(uri),
                    bootstrap=broker.bootstrap,
                    topic=topic,
                ),
                encoding="utf-8",
            )
            worker = on.enter_context(_worker(shell, layout.config, self.out / "worker.log"))
            stream = _Stream(broker.bootstrap, topic, _documents(), random.Random(self.seed))
            on.callback(stream.close)
            self._watch(shell, layout.config, stream, worker)

    def _towers(self, shell: Shell, layout: Layout) -> tuple[Path, Path]:
        """Those that `bartizan demo` trained, where it ran; else MiniLM as it comes."""
        trained = Layout(self.demo)
        if trained.document.is_dir() and trained.query.is_dir():
            shell.step(f"The towers that `bartizan demo` left in {self.demo}")
            return trained.document, trained.query
        shell.step("A tower: MiniLM, exported to ONNX (`bartizan demo` would train a better pair)")
        shell.run("tower", "import", "minilm", "--max-tokens", str(MAX_TOKENS), "--out", layout.start)
        shell.run("export", layout.start, "--precision", "int8", "--out", layout.document)
        return layout.document, layout.document

    def _watch(self, shell: Shell, config: Path, stream: "_Stream", worker: "subprocess.Popen[bytes]") -> None:
        shell.step(f"The corpus, and then {self.edits:,} edits of it, {self.rate:g} a second")
        live = Live(self.edits, shell.say)
        stream.put_all()
        _until(lambda: _stored(config) == stream.documents, worker, "the corpus is not stored")
        shell.say(f"{len(stream.documents):,} documents are stored; now they change")
        with _searching(config) as texts, live:
            stream.edit(self.edits, self.rate, self.seconds)
            while not stream.is_over or stream.waiting:
                _require_living(worker, "an edit is not found")
                began, found = time.time(), texts()
                for edit in stream.found(found):
                    live.found(time.time() - edit.produced, stream.sent)
                if began - stream.oldest() > _PATIENT:
                    raise Stop(f"an edit is not found after {_PATIENT:.0f} s; {_WORDS}")
                time.sleep(0.02)
        _until(lambda: _stored(config) == stream.documents, worker, "the last edits are not stored")
        live.summary(stream.sent, len(stream.documents))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    number: int
    produced: float


class _Stream:
    """Writes the topic, and knows what it says."""

    def __init__(
        self, bootstrap: str, topic: str, documents: Mapping[str, dict[str, str]], dice: random.Random
    ) -> None:
        from kafka import KafkaProducer

        self.documents = dict(documents)
        """As the topic says they are."""
        self.sent = 0
        self._topic, self._dice = topic, dice
        self._producer = KafkaProducer(bootstrap_servers=bootstrap)
        self.waiting: dict[str, _Edit] = {}
        """By id, the oldest edit that no search has found yet."""
        self._lock, self._over = Lock(), Event()
        self._thread: Thread | None = None

    def put_all(self) -> None:
        """The corpus as it is."""
        for id, document in self.documents.items():
            self._send(id, document)
        self._producer.flush(30)

    def edit(self, count: int, rate: float, seconds: float) -> None:
        """Begin to change documents, in a thread: four of five are written anew, one is removed or comes back."""

        def go_on() -> None:
            ends, whole = time.monotonic() + seconds, dict(self.documents)
            for number in range(1, count + 1):
                if self._over.wait(self._dice.expovariate(rate)) or time.monotonic() > ends:
                    break
                self._change(number, whole)
            self._producer.flush(30)
            self._over.set()

        self._thread = Thread(target=go_on, name="bartizan-edits", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether all edits were sent."""
        return self._over.is_set()

    def found(self, texts: Mapping[str, str]) -> list[_Edit]:
        """The edits that are among what a search found, or that a newer one has replaced there."""
        with self._lock:
            found = {id: edit for id, edit in self.waiting.items() if _number(texts.get(id, "")) >= edit.number}
            self.waiting = {id: edit for id, edit in self.waiting.items() if id not in found}
        return list(found.values())

    def oldest(self) -> float:
        """When the oldest edit was produced that no search has found yet; now, where there is none."""
        with self._lock:
            return min((edit.produced for edit in self.waiting.values()), default=time.time())

    def close(self) -> None:
        """No more edits."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._producer.close(timeout=5)

    def _change(self, number: int, whole: Mapping[str, dict[str, str]]) -> None:
        id = self._dice.choice(list(whole))
        with self._lock:
            if self._dice.random() < 0.2 and id in self.documents:
                del self.documents[id]
                self.waiting.pop(id, None)
                self._send(id, None)
            else:
                self.documents[id] = whole[id] | {"text": f"Edit {number}. {whole[id]['text']}"}
                edit = _Edit(number=number, produced=self._send(id, self.documents[id]))
                self.waiting.setdefault(id, edit)
        self.sent = number

    def _send(self, id: str, document: Mapping[str, str] | None) -> float:
        value = None if document is None else json.dumps(document).encode()
        produced = time.time()
        self._producer.send(self._topic, key=id.encode(), value=value)
        return produced


def _documents() -> dict[str, dict[str, str]]:
    chosen = corpora.build(documents=_DOCUMENTS).documents
    return {each["_id"]: {key: value for key, value in each.items() if key != "_id"} for each in chosen}


def _stored(config: Path) -> dict[str, dict[str, str]]:
    """What the index holds; nothing while nobody has made it, or it does not answer."""
    settings = Config.load(config)
    with suppress(Retry), closing(settings.backend.open()) as backend:
        try:
            store = backend.open(collection_of(settings), create=False)
        except WrongUse:
            return {}
        with closing(store):
            return {each.id: {name: str(value) for name, value in each.rows[0].fields.items()} for each in store.scan()}
    return {}


@contextmanager
def _searching(config: Path) -> Iterator[Callable[[], Mapping[str, str]]]:
    """A search that finds every document: id → its text as it is now; nothing while it is not answered."""
    settings = Config.load(config)
    collection = collection_of(settings)
    with ExitStack() as opened:
        (encoder,) = open_encoders(settings, "query").values()
        opened.enter_context(closing(encoder))
        backend = opened.enter_context(closing(settings.backend.open()))
        store = opened.enter_context(closing(backend.open(collection, create=False)))
        query = encoder.encode(["an edit"], "query")
        leg = collection.legs[0].name

        def texts() -> Mapping[str, str]:
            with suppress(Retry):
                return {hit.id: str(hit.fields["text"]) for hit in store.search(leg, query, _EVERYTHING)[0]}
            return {}

        yield texts


def _number(text: str) -> int:
    word = text.partition(".")[0].removeprefix("Edit ")
    return int(word) if word.isdigit() else 0


def _until(holds: Any, worker: "subprocess.Popen[bytes]", what: str) -> None:
    deadline = time.monotonic() + _PATIENT
    while not holds():
        _require_living(worker, what)
        if time.monotonic() > deadline:
            raise Stop(f"{what} after {_PATIENT:.0f} s")
        time.sleep(0.2)


def _require_living(worker: "subprocess.Popen[bytes]", what: str) -> None:
    if worker.poll() is not None:
        raise Stop(f"{what}: the worker has ended with {worker.returncode}; {_WORDS}")


@contextmanager
def _store(shell: Shell, folder: Path) -> Iterator[str]:
    """A Milvus server where its package is installed, else a file; its address."""
    if not milvus.is_installed():
        shell.say("store: the embedded one, in one file (pip install milvus==2.3.5 brings a Milvus server)")
        yield "index.bartizan"
        return
    server = milvus.milvus_server((folder / "milvus").absolute(), (folder / "milvus" / "programs").absolute())
    try:
        shell.say(f"store: a Milvus server at {server.uri}")
        yield server.uri
    finally:
        server.stop()


@contextmanager
def _worker(shell: Shell, config: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The command in a process of its own, told to end at the end."""
    arguments = ("ingest", str(config), "--follow")
    shell.say(f"worker: bartizan {' '.join(arguments)}")
    with log.open("wb") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "bartizan_connector", *arguments],
            stdout=words, stderr=words, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
