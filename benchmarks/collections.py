"""The judged collections with plain MiniLM in both engines, beside the values that were measured elsewhere.

The expected values stand in the README of the collections' folder (BARTIZAN_DATA): all-MiniLM-L6-v2, 256 tokens,
cosine, exact search, measured with sentence-transformers.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import WrongUse
from bartizan_training.evaluate.evaluation import Evaluation
from benchmarks.record import Record

ENGINES = ("onnx", "torch")
TREC_POOL = "trec-dl-2019-2020-pool"
"""Has grades from 0 to 3, of which 2 and 3 are relevant; large, so it is judged in one engine only."""
_MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Expected:
    """What was measured elsewhere; None: nothing."""

    ndcg: float | None
    recall: float | None


def data_folder() -> Path:
    """Where the collections lie."""
    folder = Path(os.environ.get("BARTIZAN_DATA", Path(__file__).parent.parent / "../shared/data")).resolve()
    if not folder.is_dir():
        raise WrongUse(f"no judged collections at {folder}; set BARTIZAN_DATA to a folder of BEIR folders")
    return folder


def expected(folder: Path) -> dict[str, Expected]:
    """The MiniLM columns of the table in the folder's README, by collection."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    header, _, *lines = rows
    name, ndcg, recall = (header.index(column) for column in ("collection", "MiniLM nDCG@10", "MiniLM R@100"))
    return {row[name]: Expected(_number(row[ndcg]), _number(row[recall])) for row in lines}


def minilm(folder: Path) -> Path:
    """Plain MiniLM as a tower."""
    from bartizan_encoders.importing import Wishes, import_tower  # heavy, and the table above needs none of it

    import_tower("minilm", Wishes(max_tokens=_MAX_TOKENS)).save(folder)
    return folder


def run() -> None:
    """Judge every collection in every engine."""
    folder = data_folder()
    record = Record("collections")
    results: list[dict[str, Any]] = []
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as aside:
        tower = minilm(Path(aside) / "minilm")
        for name, wanted in sorted(expected(folder).items(), key=lambda row: (row[0] == TREC_POOL, row[0])):
            for engine in ENGINES[:1] if name == TREC_POOL else ENGINES:
                err.print(f"{name} with {engine}", markup=False)
                result = Evaluation(
                    data=folder / name, tower=tower, engine=engine, relevant_from=2 if name == TREC_POOL else 1
                ).run()
                kept = result.model_dump(exclude={"per_query", "latency_ms", "command", "versions", "comparison"})
                results.append(kept | {"expected": {"nDCG@10": wanted.ndcg, "R@100": wanted.recall}})
                rows.append(_row(name, engine, result.metrics, wanted))
                record.write({"evaluations": results}, {"all-MiniLM-L6-v2, 256 tokens, exact search": rows})
    record.show()


def _row(name: str, engine: str, metrics: dict[str, float], wanted: Expected) -> dict[str, str]:
    recall = next(value for measure, value in metrics.items() if measure.startswith("R") and measure.endswith("@100"))
    return {
        "collection": name,
        "engine": engine,
        "nDCG@10": f"{metrics['nDCG@10']:.4f}",
        "expected": _shown(wanted.ndcg),
        "R@100": f"{recall:.4f}",
        "expected ": _shown(wanted.recall),
    }


def _number(cell: str) -> float | None:
    return None if cell == "-" else float(cell)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
