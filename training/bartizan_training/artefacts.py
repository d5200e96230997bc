"""What the steps of a run make: artefacts, each in a folder under what it was made from.

RUN/artefacts/<name>-<kind>/<key>/                      one artefact, written aside: it is whole or not there
RUN/artefacts/<name>-<kind>/<key>/made_from.json        what the key is the digest of

An artefact that was made from the same has the same key and is used again; one made from anything else has a folder of
its own beside it. A name is that of the step that gives the artefact (or, for vectors, the role that was encoded).
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from bartizan_connector.base.aside import folder_aside, sync_folder, sync_tree
from bartizan_connector.space.canonical import digest_of

Kind = Literal[
    "towers", "negatives", "vectors", "clusters", "cross_encoder", "late_interaction", "scores", "tokenizer", "tokens"
]

PARTS: Mapping[Kind, tuple[str, ...]] = {
    "towers": ("document", "query"),
    "negatives": (),
    "vectors": (),
    "clusters": (),
    "cross_encoder": (),
    "late_interaction": (),
    "scores": (),
    "tokenizer": (),
    "tokens": (),
}
"""What an artefact of each kind holds that can be taken by itself: a folder of that name inside."""
KEPT_FOR_THE_RUN: tuple[Kind, ...] = ("vectors", "tokens")
"""What is dropped when the run is done: it can be made again, and may be large."""
MADE_FROM = "made_from.json"
_HASH_DOMAIN = "bartizan.artefact/1"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One artefact, made or still to be made."""

    folder: Path
    made_from: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Identity of what it was made from."""
        return self.folder.name

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return self.folder.is_dir()

    @contextmanager
    def written(self) -> Iterator[Path]:
        """A folder to fill by one process; it is on disk, whole and under its name, when the block ends."""
        with folder_aside(self.folder, marker=MADE_FROM) as fresh:
            yield fresh
            self._write_origin(fresh)

    @contextmanager
    def written_by_all(self, accelerator: Accelerator) -> Iterator[Path]:
        """A folder that all processes fill together."""
        with folder_by_all(accelerator, self.folder) as fresh:
            yield fresh
            if accelerator.is_main_process:
                self._write_origin(fresh)

    def _write_origin(self, folder: Path) -> None:
        (folder / MADE_FROM).write_text(json.dumps(self.made_from, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Artefacts:
    """All artefacts of a run."""

    root: Path

    def of(self, name: str, kind: Kind, made_from: Mapping[str, Any]) -> Artefact:
        """The artefact of that name and kind that is made from exactly this."""
        key = digest_of(made_from, domain=_HASH_DOMAIN)[:16]
        return Artefact(self.root / f"{name}-{kind}" / key, made_from)

    def drop(self, kind: Kind) -> None:
        """Delete every artefact of the kind."""
        for folder in self.root.glob(f"*-{kind}"):
            shutil.rmtree(folder)


@contextmanager
def folder_by_all(accelerator: Accelerator, target: Path) -> Iterator[Path]:
    """A new folder that all processes fill; `target` is on disk when the block ends, and untouched when it raises."""
    aside = target.with_name(f"{target.name}.part")
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    yield aside
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        sync_tree(aside)
        aside.rename(target)
        sync_folder(target.parent)
    accelerator.wait_for_everyone()
