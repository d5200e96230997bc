"""Which ids the store was about to change when the words were last brought up: what a kill may have left apart.

Rows change first and words follow, so between the two the words are behind. The ids are written here, durably, before
the first of their rows changes, and taken out once the words have followed. Whoever finds some makes the words agree
with the store about exactly these.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from bartizan_connector.base.aside import sync_folder, write_aside

JOURNAL_FILE = "unsettled.jsonl"
ORIGIN_FILE = "filled-from.json"


class Journal:
    """One file, a list of ids a line, each flushed to disk. Kept by the one who writes the words."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self._origin = folder / ORIGIN_FILE

    def filled_from(self) -> str | None:
        """The physical collection whose words these are; None where nobody has said so yet."""
        try:
            return str(json.loads(self._origin.read_bytes())["collection"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def fill_from(self, physical: str) -> None:
        """From now on they are that collection's."""
        write_aside(self._origin, json.dumps({"collection": physical}))

    def announced(self) -> list[str]:
        """The ids that may differ, each once. A line that was cut off announced nothing: no row had changed yet."""
        try:
            lines = self._path.read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        ids: dict[str, None] = {}
        for line in lines:
            try:
                ids.update(dict.fromkeys(map(str, json.loads(line))))
            except ValueError:
                continue
        return list(ids)

    def announce(self, ids: Sequence[str]) -> None:
        """Their rows are about to change."""
        is_new = not self._path.exists()
        with self._path.open("ab") as file:
            file.write(b"\n" + json.dumps(list(ids)).encode() + b"\n")  # after whatever line was cut off
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self._path.parent)

    def settle(self) -> None:
        """The words have followed. What is not on disk of this costs a look at ids that agree already."""
        if self._path.exists():
            os.truncate(self._path, 0)
