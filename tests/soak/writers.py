"""Two writers at once, in the embedded store and on a Milvus server: one is told of the other, and no id is wrong."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from tests.connector.stream.test_two_writers import rounds
from tests.servers.milvus import MilvusServer, milvus_server
from tests.soak.piece import Piece

TITLE = "rounds of two writers"
_ROUND = 5


def pieces(count: int, ends: float) -> Iterator[Piece]:
    """So many rounds in either store."""
    left = count
    with TemporaryDirectory() as folder, _server(Path(folder)) as server:
        while left > 0 and time.monotonic() < ends:
            seed, some = random.randrange(10**6), min(_ROUND, left)
            file = Path(folder) / f"{seed}.bartizan"
            with Piece.named(seed):
                rounds(partial(_embedded, file), "docs", some, seed)
                rounds(partial(_on, server), f"two_writers_{seed}", some, seed)
            left -= some
            yield Piece(seed, some, {"embedded": some, "Milvus server": some})


def _embedded(file: Path, silence: float) -> EmbeddedBackend:
    return EmbeddedBackend(file, silence=silence)


def _on(server: MilvusServer, silence: float) -> MilvusBackend:
    return MilvusBackend(server.uri, consistency="Strong", silence=silence)


@contextmanager
def _server(folder: Path) -> Iterator[MilvusServer]:
    server = milvus_server(folder, folder / "binaries")
    try:
        yield server
    finally:
        server.stop()
