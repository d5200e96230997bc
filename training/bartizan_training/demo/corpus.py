"""The demo's corpus: Python's own documentation of its standard library, with judged queries, in BEIR layout."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bartizan_connector.base.errors import Stop
from bartizan_training.data.collections import write_collection
from bartizan_training.demo import judgements
from bartizan_training.demo.judgements import Query

Document = Mapping[str, str]

_SECONDS = 120
"""Gathering takes about one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The documents, the judged queries, and the judged names that this Python does not have."""

    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    missing: tuple[str, ...]

    def split(self, name: str) -> list[Query]:
        """The queries of one split."""
        return [query for query in self.queries if query.split == name]

    def write(self, folder: Path) -> None:
        """Save it in BEIR layout."""
        queries = ({"_id": query.id, "text": query.text} for query in self.queries)
        splits = {
            split: [(query.id, name) for query in self.split(split) for name in query.relevant]
            for split in ("train", "dev", "test")
        }
        write_collection(folder, self.documents, queries, splits)


def build(*, documents: int | None = None) -> Corpus:
    """What the running Python has; `documents` keeps only so many (all that are judged, and others by a hash)."""
    gathered = gather()
    queries, missing = judgements.known(judgements.read(), {document["_id"] for document in gathered})
    if documents is not None:
        judged = {name for query in queries for name in query.relevant}
        gathered = sorted(gathered, key=lambda document: (document["_id"] not in judged, _hash(document["_id"])))
        gathered = sorted(gathered[: max(documents, len(judged))], key=lambda document: document["_id"])
    return Corpus(documents=tuple(gathered), queries=tuple(queries), missing=tuple(missing))


def gather() -> list[Document]:
    """Ask a process of its own: to document a module is to import it, and some modules act when they are imported."""
    script = Path(__file__).with_name("gather.py")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "documents.jsonl"
        # -I: nothing of the user's environment or folder; -S: nothing of site-packages.
        command = [sys.executable, "-I", "-S", "-W", "ignore", str(script), str(answer)]
        environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
        try:
            subprocess.run(
                command,
                cwd=folder,
                env=environment | {"TERM": "dumb"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=True,
            )
            lines = answer.read_text(encoding="utf-8").strip().split("\n")
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was said"]
            raise Stop(f"the documentation of this Python cannot be gathered: {said[0]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Stop(f"the documentation of this Python cannot be gathered: {error}") from error
    return [json.loads(line) for line in lines]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
