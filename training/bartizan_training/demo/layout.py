"""What lies where in the folder that the demo makes."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from bartizan_connector.base.errors import Stop, WrongUse

MARKER = "demo.json"
"""Says that a demo made the folder, and with which options."""
_MADE = {
    *("corpus", "training-data", "untrained", "towers", "recipe.toml", "run"),
    *("export", "bartizan.toml", "index.bartizan*", "results"),
    *("kafka", "milvus", "worker.log"),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The demo's folder; everything in it can be used by every command afterwards."""

    root: Path

    @property
    def corpus(self) -> Path:
        """The documents and the judged queries, a BEIR folder."""
        return self.root / "corpus"

    @property
    def training_data(self) -> Path:
        """What the towers learn from, a BEIR folder too."""
        return self.root / "training-data"

    @property
    def untrained(self) -> Path:
        """The model of `--from-scratch`, which has learned nothing yet."""
        return self.root / "untrained"

    @property
    def start(self) -> Path:
        """The tower that training starts from."""
        return self.root / "towers" / "start"

    @property
    def recipe(self) -> Path:
        """How the towers are trained."""
        return self.root / "recipe.toml"

    @property
    def run(self) -> Path:
        """What training leaves."""
        return self.root / "run"

    @property
    def document(self) -> Path:
        """The export of the document tower, which is the teacher too."""
        return self.root / "export" / "document"

    @property
    def query(self) -> Path:
        """The export of the distilled query tower."""
        return self.root / "export" / "query"

    @property
    def config(self) -> Path:
        """For ingest, search and doctor."""
        return self.root / "bartizan.toml"

    @property
    def vectors(self) -> Path:
        """The documents' vectors, kept from one evaluation to the next."""
        return self.root / "results" / "documents.npz"

    def result(self, name: str) -> Path:
        """What an evaluation found."""
        return self.root / "results" / f"{name}.json"

    def clear(self, marker: dict[str, object]) -> bool:
        """Make the folder ready for a new demo, and say whether an older one had to go; foreign folders are refused,
        and files of other names are left alone."""
        mark = self.root / MARKER
        if self.root.exists() and not self.root.is_dir():
            raise WrongUse(f"{self.root} is a file; give the demo another --out")
        older = mark.exists()
        if not older and self.root.exists() and any(self.root.iterdir()):
            raise WrongUse(f"{self.root} is not empty and no demo made it; give the demo another --out")
        try:
            if older:
                for name in _MADE:
                    for path in self.root.glob(name):
                        _remove(path)
            self.root.mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise Stop(f"cannot write {self.root}: {error.strerror}; give the demo another --out") from error
        return older


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
