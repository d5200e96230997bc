"""A whole copy of the file while others read and write it, and the room given back that nothing stands in."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from bartizan_connector.base.aside import file_aside
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.store.embedded.failures import calling, no_room
from bartizan_connector.store.embedded.place import Place

_ROOM = 1.1
"""A compacted file is written beside the old one before it takes its place."""


def copy(place: Place, target: Path) -> None:
    """By SQLite's own backup: one moment of the truth, whole when it appears. Indexes are not copied: they come again.
    Nobody writes into the copy, whoever writes into the original."""
    if target.exists():
        raise WrongUse(f"{target} exists already; a backup replaces nothing: give another path")
    _require(place)
    with file_aside(target) as aside:
        try:
            with calling(target), place.reading() as source:
                connect = f"file:{quote(str(aside))}?mode=rwc"
                with closing(sqlite3.connect(connect, uri=True, isolation_level=None)) as made:
                    source.commit()  # the backup takes a moment of its own
                    source.backup(made)
                    made.execute("PRAGMA synchronous = FULL")
                    made.execute("UPDATE collections SET holder = ''")
                    made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            for suffix in ("-wal", "-shm", "-journal"):
                aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def compact(place: Place) -> int:
    """Write the file anew without the pages that are empty. A reader keeps the moment it sees; a writer waits.
    Row numbers stay, so every index stays good."""
    _require(place)
    before = _size(place)
    statistics = os.statvfs(place.path.parent)
    free = statistics.f_bavail * statistics.f_frsize
    with calling(place.path):
        with place.reading() as connection:
            ((pages,), (empty,)) = (
                connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "freelist_count")
            )
        needed = int(before * _ROOM * (pages - empty) / max(1, pages))
        if free < needed:
            raise no_room(place.path, f"compacting needs {needed:,} bytes for a while, and {free:,} are free")
        with closing(sqlite3.connect(str(place.path), isolation_level=None, timeout=60.0)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(0, before - _size(place))


def _size(place: Place) -> int:
    """Of the file and its log."""
    log = place.path.with_name(place.path.name + "-wal")
    return sum(each.stat().st_size for each in (place.path, log) if each.exists())


def _require(place: Place) -> None:
    if not place.exists:
        raise Stop(f"there is no store at {place.path}; ingest documents first")
