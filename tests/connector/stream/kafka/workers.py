"""Changes for a topic, the dictionary that they come to, and pipelines in threads that read them."""

import json
import random
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.report import Report
from tests.connector.stream.faults import COLLECTION, Encoder, run_dense
from tests.connector.stream.kafka.media import settings_for
from tests.servers.kafka import KafkaServer

Model = dict[str, str]


def changes(seed: int, count: int, ids: int) -> list[dict[str, Any]]:
    """Puts, updates and deletes of a few ids, by null values and by `_deleted`."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        id = f"d{chance.randrange(ids)}"
        kind = chance.random()
        value: bytes | None = json.dumps({"text": f"tower {number}"}).encode()
        if kind < 0.1:
            value = None
        elif kind < 0.2:
            value = b'{"_deleted": true}'
        found.append({"key": id.encode(), "value": value})
    return found


def after(records: Sequence[dict[str, Any]], model: Model | None = None) -> Model:
    """The dictionary that they come to."""
    model = dict(model or {})
    for record in records:
        id = record["key"].decode()
        text = json.loads(record["value"]).get("text") if record["value"] else None
        if text is None:
            model.pop(id, None)
        else:
            model[id] = text
    return model


class Worker:
    """A pipeline in a thread of its own."""

    def __init__(
        self, server: KafkaServer, topic: str, backend: MemoryBackend, *, encoder: Encoder | None = None, **more: Any
    ) -> None:
        self._source = KafkaSource.open(
            settings_for(server, topic, batch_size=20, **({"session_timeout": 10.0} | more))
        )
        self._backend = backend
        self.shares: list[Report] = []
        self._encoder = encoder or Encoder()
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def read(self) -> int:
        return sum(share.read - share.dropped for share in self.shares)

    @property
    def partitions(self) -> set[int]:
        reader = self._source._reader
        return set(reader.assigned) if reader is not None else set()

    @property
    def idle(self) -> bool:
        """Whether everything there is has been given."""
        return self._source.backlog() == 0

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        patience = Patience(attempts=100, seconds=60.0, longest_wait=0.5)
        try:
            with closing(self._source):
                run_dense(
                    self._source,
                    self._encoder,
                    self._backend,
                    COLLECTION,
                    stop=self._stop,
                    on_batch=self.shares.append,
                    patience=patience,
                )
        except BaseException as error:  # noqa: BLE001  told by `end`
            self.failure = error
