"""Milvus Lite: a folder served inside this process, shared by all who open it here and locked against others."""

import atexit
import json
import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import grpc

from bartizan_connector.base.aside import sync_folder
from bartizan_connector.base.errors import Retry, Stop, WrongUse, missing_extra

if find_spec("milvus_lite") is None:
    raise missing_extra("milvus-lite", "milvus")

from milvus_lite.adapter.grpc.server import start_server_in_thread
from milvus_lite.db import ALIASES_FILENAME, LOCK_FILENAME, SCHEMA_FILENAME
from milvus_lite.exceptions import DataDirLockedError, ManifestCorruptedError, WALCorruptedError

_GRACE_SECONDS = 2.0
_OPEN_MARK = "bartizan.open"
"""In the folder as long as a process serves it; who finds it there comes after one that was killed."""
_INDEX_FILES = ("*.idx", "*.sidx")
_FLUSH_SHARE, _FLUSH_LEAST = 3, 1 << 20


@dataclass(slots=True)
class _Served:
    path: Path
    server: grpc.Server
    database: Any
    port: int
    users: int = 1


_served: dict[Path, _Served] = {}
_lock = Lock()


def serve(path: Path, *, create: bool) -> str:
    """The address under which the file is served; every call needs one `release`."""
    path = path.resolve()
    with _lock:
        if path in _served:
            _served[path].users += 1
        else:
            if not create and not path.exists():
                raise WrongUse(f"there is no Milvus Lite file {path}; ingest documents first, or correct [backend] uri")
            if not _served:
                atexit.register(_release_all)
            _served[path] = _start(path)
        return f"http://127.0.0.1:{_served[path].port}"


def release(path: Path) -> None:
    """One user less; the last one stops the server, syncs the data to disk and frees the lock."""
    path = path.resolve()
    with _lock:
        served = _served.get(path)
        if served is None:
            return
        served.users -= 1
        if served.users == 0:
            del _served[path]
            _stop(served)


def sync_names(path: Path) -> None:
    """Flush the aliases, which Milvus Lite writes without."""
    names = path.resolve() / ALIASES_FILENAME
    with names.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(names.parent)


def has_room_to_flush(path: Path) -> bool:
    """Whether what is only in the log can become segments and indexes. Rows whose flush fails are in the log still, but
    Milvus Lite shows them no more until it is opened again."""
    logged = sum(_size_of(file) for file in path.resolve().glob("collections/*/wal/*"))
    return shutil.disk_usage(path).free > _FLUSH_SHARE * logged + _FLUSH_LEAST


def _size_of(file: Path) -> int:
    """Nothing for a file that has gone meanwhile, as the logs of what another thread flushes do."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _start(path: Path) -> _Served:
    if path.is_file():
        raise WrongUse(
            f"{path} is a file, but Milvus Lite keeps a folder; it may be from an older Milvus Lite: "
            "point [backend] uri elsewhere and ingest again"
        )
    if path.is_dir() and not (path / LOCK_FILENAME).exists() and any(path.iterdir()):
        raise WrongUse(f"the folder {path} holds something else than Milvus Lite data; point [backend] uri elsewhere")
    # It prints each failure with its whole traceback, and returns it too; it is told once, by us.
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        served = _Served(path, *start_server_in_thread(str(path), host="127.0.0.1", port=0))
    except DataDirLockedError as error:
        raise Retry(
            f"{path} is in use by another process; wait until that has ended, or, to share the collection, "
            "run a Milvus server and set [backend] uri to its address",
            after=2.0,
        ) from error
    except (ManifestCorruptedError, WALCorruptedError) as error:
        raise Stop(f"the Milvus Lite folder {path} is damaged: {error}; remove it and ingest again") from error
    except OSError as error:
        raise WrongUse(f"cannot keep a Milvus Lite folder at {path}: {error.strerror or error}") from error
    _mend(path)
    return served


def _mend(path: Path) -> None:
    """Take away what a killed process, or one without room, may have left half made, and what Milvus Lite would trip
    over for ever: index files, which it writes in place and makes anew from the rows, and collections that got no
    schema, or half of one, so no row yet."""
    mark = path / _OPEN_MARK
    if mark.exists():
        for pattern in _INDEX_FILES:
            for file in path.rglob(pattern):
                file.unlink()
    for folder in path.glob("collections/*/"):
        if not _is_json(folder / SCHEMA_FILENAME):
            shutil.rmtree(folder)
    mark.touch()


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _stop(served: _Served) -> None:
    served.server.stop(grace=_GRACE_SECONDS).wait()
    served.database.close()
    (served.path / _OPEN_MARK).unlink(missing_ok=True)


def _release_all() -> None:
    """At exit: what was never closed is at least synced."""
    while _served:
        with suppress(OSError):
            _stop(_served.popitem()[1])
