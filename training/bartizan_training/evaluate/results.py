"""What an evaluation leaves behind: one JSON file, which a later evaluation can be compared with."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import WrongUse
from bartizan_training.evaluate.judging import Latency
from bartizan_training.evaluate.significance import Difference, compare


class Truncated(BaseModel):
    """How many texts were longer than the towers read."""

    model_config = ConfigDict(frozen=True)

    documents: int | None
    """None where they had been encoded before."""
    queries: int


class Comparison(BaseModel):
    """How far the run is ahead of another one, measure by measure."""

    model_config = ConfigDict(frozen=True)

    baseline: str
    baseline_tower_id: str
    baseline_query_tower_id: str
    measures: dict[str, Difference]


class Result(BaseModel):
    """One evaluation."""

    model_config = ConfigDict(frozen=True)

    collection: str
    collection_digest: str
    split: str
    relevant_from: int
    """From which grade on a document counts as relevant in measures that know yes and no only."""
    engine: str
    threads: int
    tower: str
    tower_id: str
    query_tower: str
    query_tower_id: str
    space_id: str
    documents: int
    queries: int
    own_ids: int | None = None
    """Judged queries whose id a document has too: that document is no answer of theirs. None: measured when it was."""
    truncated: Truncated
    metrics: dict[str, float]
    per_query: dict[str, dict[str, float]]
    latency_ms: Latency
    comparison: Comparison | None = None
    command: str
    date: str
    versions: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result that an earlier evaluation wrote."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise WrongUse(f"cannot read the result {path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise WrongUse(f"{path} is not a result of 'bartizan eval': {where}: {first['msg']}") from error

    def write(self, path: Path) -> None:
        """Save the result, whole or not at all."""
        write_aside(path, self.model_dump_json(indent=2) + "\n")

    def require_same_task(
        self,
        *,
        collection: str,
        digest: str,
        split: str,
        queries: Collection[str],
        measures: Sequence[str],
        own_ids: int = 0,
    ) -> None:
        """Refuse to be the baseline of another task, or one that lost a value; called before the work begins."""
        ours, theirs = f"{self.collection}/{self.split}", f"{collection}/{split}"
        if ours != theirs:
            raise WrongUse(f"the baseline was measured on {ours}, this run is on {theirs}; give a result of the same")
        if self.collection_digest != digest:
            raise WrongUse(
                f"the documents, queries or judgements of {theirs} are not what the baseline was measured on; "
                "measure the baseline again on this copy"
            )
        if self.own_ids is None and own_ids:
            raise WrongUse(
                f"the baseline was measured when a document with the query's own id still counted as an answer, and "
                f"{own_ids:,} queries of {theirs} have such a document; measure the baseline again"
            )
        if missing := [name for name in measures if name not in self.metrics]:
            raise WrongUse(
                f"the baseline has no {', '.join(missing)}; it was measured with --relevant-from {self.relevant_from}"
            )
        damage = "it was cut or edited; measure it again"
        if unlike := sorted(self.per_query.keys() ^ set(queries)):
            came = "lacks" if unlike[0] in queries else "also has"
            raise WrongUse(f"the baseline {came} query '{unlike[0]}', though it is of {theirs}: {damage}")
        for query, values in self.per_query.items():
            if missing := [name for name in measures if name not in values]:
                raise WrongUse(f"the baseline has no {', '.join(missing)} for query '{query}': {damage}")

    def compared_with(self, baseline: "Result", origin: str) -> Self:
        """This result with its distance from the baseline."""
        measures = {name: compare(_values(self, name), _values(baseline, name)) for name in self.metrics}
        comparison = Comparison(
            baseline=origin,
            baseline_tower_id=baseline.tower_id,
            baseline_query_tower_id=baseline.query_tower_id,
            measures=measures,
        )
        return self.model_copy(update={"comparison": comparison})


def check_place(path: Path, what: str = "JSON file") -> None:
    """Refuse a place where no file can be written, before the work begins."""
    if path.is_dir():
        raise WrongUse(f"{path} is a folder; give the {what} to write")
    if path.exists() and not path.is_file():
        raise WrongUse(f"{path} is a device or a pipe; give the {what} to write")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise WrongUse(f"{path} cannot be written: {nearest} is not a folder that you may write to")


def _values(result: Result, measure: str) -> dict[str, float]:
    return {query: values[measure] for query, values in result.per_query.items()}
