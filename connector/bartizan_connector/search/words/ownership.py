"""Whose a folder is: the name of one collection, written before anything else is in it and never changed."""

import json
import os
from pathlib import Path
from uuid import uuid4

from bartizan_connector.base.aside import sync_folder
from bartizan_connector.base.errors import Stop

OWNER_FILE = "collection.json"


def owner_of(folder: Path) -> str | None:
    """The collection that the folder belongs to; None where it is nobody's."""
    path = folder / OWNER_FILE
    try:
        told = json.loads(path.read_bytes())
        name = told["collection"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Stop(f"{path} is damaged: it names no collection. Remove that folder and ingest again") from error
    return str(name)


def take(folder: Path, collection: str) -> str:
    """Make the folder this collection's, unless somebody else's it is already; the answer is whose it is now.

    The file is written aside, flushed and linked in, so that it is there whole or not at all, and of two who take it at
    the same time one is first."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{OWNER_FILE}.{uuid4().hex}"
    try:
        with aside.open("x", encoding="utf-8") as file:
            json.dump({"collection": collection}, file)
            file.flush()
            os.fsync(file.fileno())
        _link(aside, folder / OWNER_FILE)
        sync_folder(folder)
    finally:
        aside.unlink(missing_ok=True)
    return owner_of(folder) or collection


def _link(aside: Path, target: Path) -> None:
    try:
        os.link(aside, target)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not target.exists():
            aside.replace(target)
