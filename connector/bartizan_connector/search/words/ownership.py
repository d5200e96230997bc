"""Whose a folder is: the name of one collection, written before anything else is in it and never changed."""

import json
import os
from pathlib import Path
from uuid import uuid4

from bartizan_connector.base.aside import sync_folder
from bartizan_connector.base.errors import Stop, WrongUse

OWNER_FILE = "collection.json"
_PASSING = (f".{OWNER_FILE}.", ".tantivy-")
"""What a killed `take` and a reader of an index that was taken away leave: beginnings of names."""


def owner_of(folder: Path) -> str | None:
    """The collection that the folder belongs to; None where it is nobody's."""
    path = folder / OWNER_FILE
    try:
        told = json.loads(path.read_bytes())
        name = told["collection"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Stop(
            f"{path} is damaged: it names no collection. Set [backend] lexical to a new folder and ingest "
            "again: the words come from the files"
        ) from error
    return str(name)


def require_free(folder: Path) -> None:
    """Refuse a place that is no folder, or a folder with anything in it that no word index put there: it is somebody
    else's, and stays as it is."""
    try:
        inside = [path.name for path in folder.iterdir() if not path.name.startswith(_PASSING)]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise WrongUse(f"{folder} is no folder; set [backend] lexical to a new folder for the words") from error
    if inside and OWNER_FILE not in inside:  # else somebody has just taken it
        named = ", ".join(sorted(inside)[:3]) + (", …" if len(inside) > 3 else "")
        raise WrongUse(
            f"{folder} holds something else than a word index ({named}), and nothing was changed there; set [backend] "
            "lexical to a new folder for the words"
        )


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
