"""The steps of a change of towers, as a test takes them: filled, run, swapped."""

import time
from collections.abc import Callable
from pathlib import Path

from bartizan_connector.documents.documents import Documents
from bartizan_connector.documents.reembed import Towers
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.store.settings import BackendSettings
from tests.connector.stream.reembed.project import HeldSettings, Pair, pair, text


def memory() -> BackendSettings:
    return HeldSettings(uri="memory:", held=MemoryBackend())


def filled(folder: Path, count: int = 40, *, backend: BackendSettings | None = None) -> Pair:
    both = pair(folder, backend or memory())
    with Documents(both.old) as documents:
        documents.put({"_id": f"d{n}", "text": text(n)} for n in range(count))
        documents.delete(["d3", "never"])
    return both


def run(both: Pair, **options: object) -> object:
    with Towers.opened(both.new, both.old) as towers, towers.encoders(both.new) as encoders:
        return towers.reembedding.run(encoders, **options)  # type: ignore[arg-type]


def swap(both: Pair, **options: object) -> object:
    with (
        Towers.opened(both.new, both.old, settle=5) as towers,
        towers.encoders(both.new) as encoders,
        towers.searching(None) as searches,
    ):
        return towers.reembedding.swap(encoders, searches=searches, **options)  # type: ignore[arg-type]


def wait(done: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
