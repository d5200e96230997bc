"""Looking after a collection: room given back, in an order in which nothing can be lost, and copies."""

import time
from pathlib import Path
from typing import Any

from bartizan_connector.base.address import without_password
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.documents.documents import Documents
from bartizan_connector.store.backend import OneFile
from bartizan_connector.stream.versions import stamp

_FIRST = stamp(946_684_800_000)
"""The first version of the year 2000; below it are numbers of people's own."""


def compacted(config: Config, kept_seconds: float) -> dict[str, Any]:
    """1 forget the deletions that are older; it takes the writer's place too, so that none comes between   2 write the
    file anew without what is empty, where it is one   3 build the indexes anew. Cut off at any point, what was done is
    whole, and the next time does the rest. A deletion by a record's own `_version` tells no time, so it is kept."""
    before = stamp(int((time.time() - kept_seconds) * 1000))
    with Documents(config) as documents:
        documents.count()  # a collection that is not there is refused
        store = documents.store
        forgotten = store.purge(before, _FIRST)
        backend = documents.backend
        freed = backend.compact() if isinstance(backend, OneFile) else None
        store.reindex()
    return {"forgotten": forgotten, "bytes": freed}


def backed_up(config: Config, target: Path) -> None:
    """One moment of the whole store, in a new file."""
    with Documents(config) as documents:
        backend = documents.backend
        if not isinstance(backend, OneFile):
            raise WrongUse(
                f"{without_password(config.backend.uri)} is no embedded store: copy the folder of a Milvus Lite index "
                "while nothing has it open; a server has backups of its own"
            )
        backend.backup(target)
