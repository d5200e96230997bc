"""The file and its connections: many that read, each in a moment of its own, and one at a time that writes."""

import ctypes
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock, RLock
from urllib.parse import quote

from bartizan_connector.base.alone import alone_in
from bartizan_connector.base.aside import sync_folder
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.store.embedded.failures import APPLICATION, calling, damaged, require_possible, require_whole
from bartizan_connector.store.embedded.layout import FILE_FORMAT, SCHEMA

_PAGE = 8192
"""Five vectors of 384 fit into one."""
_CACHE_KIB = 16_384
_READER_CACHE_KIB = 4_096
"""Each commit empties it, page by page, before the next read: a large one makes that read slow."""
_MAPPED = 1 << 40
"""As much of the file as SQLite can is read where the system keeps it, without a copy of each page."""
_QUIET_SECONDS = 10.0
"""So long after a change was seen the file is mapped again: SQLite gives up the whole mapping with each change."""
_WAL_PAGES = 8_000
"""64 MiB. Documents that are replaced lie anywhere: of each, some six pages change. The longer the log, the more of
these changes meet in one page before it is written into the file: of 100,000 rows 42 KiB a document instead of 57."""
_BUSY_SECONDS = 10.0
_IDLE = 32


class _Connection(sqlite3.Connection):
    """To read or to write."""

    maps = False


class Place:
    """One file. Safe to share between threads, and between a process and its forks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._writer_lock = RLock()
        self._idle: list[_Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None
        """Process, device and inode of the file that the connections belong to."""
        self._frozen = False
        """Whether they were opened as if nobody else wrote, for want of room beside the file."""
        self._closed = False
        self._changed = -math.inf
        """When a change was last seen."""

    @property
    def exists(self) -> bool:
        if self.path.exists():
            return True
        require_possible(self.path)
        return False

    def create(self) -> None:
        """Make the file, whole at the moment it appears; of several who do so at once one does."""
        if self.exists:
            return
        with calling(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with alone_in(self.path.parent):
                self._create()

    def _create(self) -> None:
        if self.exists:
            return
        self._beside("-wal").unlink(missing_ok=True)  # of a file that was taken away: SQLite would take it for ours
        self._beside("-shm").unlink(missing_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            self._fill(aside)
            with suppress(FileExistsError):
                os.link(aside, self.path)
            sync_folder(self.path.parent)
        finally:
            for suffix in ("", "-wal", "-shm"):
                aside.with_name(aside.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction: all that is read inside is of one moment."""
        with calling(self.path):
            connection, file = self._taken()
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
                self._put_back(connection, file)

    def changed(self) -> None:
        """Whoever reads has found something new."""
        self._changed = time.monotonic()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes: when the block ends it is durable, when it raises nothing has happened."""
        with self._writer_lock, calling(self.path):
            self._same_file()
            if self._writer is None:
                self._writer = self._connected("rw", _CACHE_KIB)
            connection = self._writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of every connection that is not in use."""
        self._closed = True
        with self._writer_lock:
            self._drop()

    def _fill(self, aside: Path) -> None:
        connect = f"file:{quote(str(aside))}?mode=rwc"
        with closing(sqlite3.connect(connect, uri=True, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {_PAGE}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FILE_FORMAT}; {SCHEMA} COMMIT;"
            )
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _taken(self) -> tuple[_Connection, object]:
        """A connection in a read transaction, and the file that it belongs to."""
        self._same_file()
        file = self._opened
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._reader()
        maps = time.monotonic() - self._changed > _QUIET_SECONDS
        try:
            if connection.maps is not maps:
                connection.execute(f"PRAGMA mmap_size = {_MAPPED if maps else 0}")
                connection.maps = maps
            connection.execute("BEGIN")
        except BaseException:
            connection.close()
            raise
        return connection, file

    def _reader(self) -> _Connection:
        try:
            return self._connected("rw", _READER_CACHE_KIB)
        except sqlite3.OperationalError:
            if self._wal_size():
                raise
        connection = self._connected(
            "ro&immutable=1", _READER_CACHE_KIB
        )  # no room for SQLite's own files, and nobody who writes
        self._frozen = True
        return connection

    def _put_back(self, connection: _Connection, file: object) -> None:
        with self._lock:
            if not self._closed and self._opened is file and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _connected(self, mode: str, cache_kib: int) -> _Connection:
        require_possible(self.path)
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=_BUSY_SECONDS,
            cached_statements=256,
            factory=_Connection,
        )
        try:
            self._require_ours(connection)
            (format,) = connection.execute("PRAGMA user_version").fetchone()
            if format != FILE_FORMAT:
                raise Stop(f"the store {self.path} has format {format}, and this version reads {FILE_FORMAT}")
            connection.execute("SELECT count(*) FROM collections").fetchone()
            for pragma in (
                "synchronous = FULL",
                "temp_store = MEMORY",
                f"cache_size = -{cache_kib}",
                f"wal_autocheckpoint = {_WAL_PAGES}",
                f"journal_size_limit = {_WAL_PAGES * _PAGE}",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_ours(self, connection: sqlite3.Connection) -> None:
        """Refuse what is no store, or only the first part of one; asked by SQLite's own handle of the file."""
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            connection.close()
            require_whole(self.path)
            raise
        if application != APPLICATION:
            connection.close()
            require_whole(self.path)
        (pages,), (page,) = (connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "page_size"))
        size = os.stat(self.path).st_size
        if size < pages * page and not self._wal_size():  # else pages may lie in the log still
            raise damaged(self.path, f"it has {size} of {pages * page} bytes")

    def _same_file(self) -> None:
        """Notice that the file was taken away or replaced, that we are a fork, or that somebody writes again."""
        if self._closed:
            raise WrongUse(f"the store {self.path} is closed; open it again")
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            raise Stop(f"the store {self.path} was taken away since it was opened") from None
        now = (os.getpid(), stat.st_dev, stat.st_ino)
        if now != self._opened or (self._frozen and self._wal_size()):
            with self._writer_lock:
                self._drop()
                self._opened, self._frozen = now, False

    def _wal_size(self) -> int:
        try:
            return os.stat(self._beside("-wal")).st_size
        except FileNotFoundError:
            return 0

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _drop(self) -> None:
        """Close the connections that may be closed."""
        with self._lock:
            idle, self._idle = self._idle, []
        connections = [*idle, *([self._writer] if self._writer else [])]
        self._writer = None
        for connection in connections:
            if not self._is_ours():
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))  # closing would remove another file's log
                continue
            with suppress(sqlite3.Error):
                connection.close()

    def _is_ours(self) -> bool:
        """Whether the connections were made by this process, and to the file that stands there now."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return False
        return self._opened == (os.getpid(), stat.st_dev, stat.st_ino)
