"""Who writes into a collection and who searches it while its towers change: threads, with a model and a judge."""

import random
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from bartizan_connector.config import Config
from bartizan_connector.documents.documents import Documents
from bartizan_connector.search.following import FollowingRetriever
from tests.connector.stream.reembed.project import WORDS, Pair, text


class Writer:
    """A worker that was started with one configuration, and holds on to what it has opened."""

    def __init__(self, config: Config, before: "Writer | None" = None, *, ids: int = 60) -> None:
        self._config, self._ids = config, ids
        self._dice = random.Random(len(before.model) if before else 1)
        self._turn = before._turn if before else 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._begun = threading.Event()
        self.error: BaseException | None = None
        with Documents(config) as documents:
            self.model = {str(each["_id"]): str(each["text"]) for each in documents.scan()}

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        assert self.error is None, self.error

    def _write(self) -> None:
        try:
            with Documents(self._config) as documents:
                while not self._stop.is_set():
                    self._turn += 1
                    ids = self._dice.sample(range(self._ids), 3)
                    if self._dice.random() < 0.3:
                        documents.delete([f"d{n}" for n in ids])
                        for n in ids:
                            self.model.pop(f"d{n}", None)
                    else:
                        documents.put({"_id": f"d{n}", "text": text(n, self._turn)} for n in ids)
                        self.model |= {f"d{n}": text(n, self._turn) for n in ids}
                    self._begun.set()
                    time.sleep(0.01)
        except Exception as error:  # noqa: BLE001  raised where the writer ends
            self.error = error
            self._begun.set()


class Readers:
    """Two clients that follow the name; every answer is held against what its own tower says."""

    def __init__(self, both: Pair) -> None:
        self._both = both
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(seed,)) for seed in range(2)]
        self.spaces: Counter[str] = Counter()
        self.failures: list[str] = []
        self._retriever = FollowingRetriever.open([both.old, both.new], every=0.02)
        self._newest = ""

    @property
    def asked(self) -> int:
        return sum(self.spaces.values())

    def wait_for(self, which: str, seconds: float = 20.0) -> None:
        """Until the newest answer is of that space."""
        deadline = time.monotonic() + seconds
        while self._newest != self._both.spaces[which]:
            assert time.monotonic() < deadline, (which, self.failures)
            time.sleep(0.01)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._retriever.close()

    def _read(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stop.is_set():
            query = " ".join(dice.sample(WORDS, 2))
            try:
                answer = self._retriever.search(query, 5)
            except Exception as error:  # noqa: BLE001  every failure is told
                self.failures.append(repr(error))
                return
            if answer.degraded or not answer.results or (wrong := self._both.mixing(query, answer)):
                self.failures.append(f"{query}: {answer.degraded} {answer.results and wrong}")
            assert answer.space_id is not None
            self.spaces[answer.space_id] += 1
            self._newest = answer.space_id
