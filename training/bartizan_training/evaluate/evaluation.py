"""One evaluation from folders to a result; whatever can be refused is refused before anything is encoded."""

import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate import vectors
from bartizan_training.evaluate.engines import opened
from bartizan_training.evaluate.judging import judge, require_pair
from bartizan_training.evaluate.measuring import measures, require_relevant
from bartizan_training.evaluate.results import Result, Truncated

_VERSIONS = ("bartizan-search", "numpy", "tokenizers", "onnxruntime", "torch", "transformers", "ir-measures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is to be judged, and on what."""

    data: Path
    tower: Path
    query_tower: Path | None = None
    """The document tower, when absent."""
    split: str = "test"
    engine: str = "onnx"
    threads: int = 0
    server: str | None = None
    """Where the towers are served, by an engine that is not in this process."""
    relevant_from: int = 1
    baseline: Path | None = None
    keep: Path | None = None
    """Where the documents' vectors are kept for the next evaluation."""
    command: str = ""

    def run(self) -> Result:
        """Encode, search, measure, and compare with the baseline."""
        query_folder = self.query_tower or self.tower
        document_spec, query_spec = TowerSpec.read(self.tower), TowerSpec.read(query_folder)
        require_pair(document_spec, query_spec)
        names = measures(self.relevant_from)
        baseline = Result.read(self.baseline) if self.baseline else None
        data = BeirData.read(self.data)
        qrels, digest = data.qrels(self.split), data.digest(self.split)
        require_relevant(qrels, self.relevant_from, where=f"split '{self.split}' of {self.data}")
        if baseline:
            baseline.require_same_task(
                collection=data.name,
                digest=digest,
                split=self.split,
                queries=qrels,
                measures=names,
                own_ids=len(qrels.keys() & data.corpus.keys()),
            )
        with ExitStack() as stack:
            encoder = stack.enter_context(self._opened(self.tower))
            same = query_folder.resolve() == self.tower.resolve()
            query_encoder = encoder if same else stack.enter_context(self._opened(query_folder))
            document_spec, query_spec = (
                encoder.spec,
                query_encoder.spec,
            )  # a server may run a newer version than the folder
            documents = vectors.documents(data, encoder, self.engine, self.keep)
            judged = judge(data, qrels, documents, query_encoder, relevant_from=self.relevant_from)
        result = Result(
            collection=data.name,
            collection_digest=digest,
            split=self.split,
            relevant_from=self.relevant_from,
            engine=self.engine,
            threads=self.threads,
            tower=document_spec.name,
            tower_id=document_spec.tower_id,
            query_tower=query_spec.name,
            query_tower_id=query_spec.tower_id,
            space_id=document_spec.space_id,
            documents=len(documents.ids),
            queries=len(qrels),
            own_ids=len(qrels.keys() & data.corpus.keys()),
            truncated=Truncated(documents=sum(documents.vectors.truncated), queries=judged.truncated),
            metrics=judged.measured.metrics,
            per_query=judged.measured.per_query,
            latency_ms=judged.latency,
            command=self.command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=installed(),
        )
        return result.compared_with(baseline, str(self.baseline)) if baseline else result

    def _opened(self, folder: Path) -> AbstractContextManager[Encoder]:
        return opened(folder, self.engine, threads=self.threads, server=self.server)


def installed() -> dict[str, str]:
    """Versions of what decides the numbers, as far as it is installed."""
    versions = {"python": sys.version.split()[0]}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
