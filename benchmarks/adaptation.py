"""What CSPLADE's adaptation brings at equal steps: runs with and without it, three seeds, one small judged collection.

The run without adaptation spends the adaptation's steps on contrast. Everything lies in the folder BARTIZAN_ADAPTATION
(`bartizan-adaptation`): a run that was cut short goes on where it was, and what was judged is not judged again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.console import err
from bartizan_connector.base.tables import read_toml
from bartizan_connector.space.vectors import SparseVector
from bartizan_encoders.local import TorchEncoder
from bartizan_training import toml
from bartizan_training.data.collections import BeirData, write_collection
from bartizan_training.evaluate.evaluation import Evaluation
from bartizan_training.evaluate.results import Result
from bartizan_training.evaluate.significance import compare
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe, shipped
from benchmarks.collections import data_folder
from benchmarks.record import Record

SEEDS = (0, 1, 2)
ARMS = {"with adaptation": True, "without": False}
STEPS: Mapping[str, int] = {"adapt": 15, "splade": 20}
"""Of the run with adaptation: fewer and smaller than the recipe's, so that six runs take two cores half an hour."""
_BATCH = 16
_TRAINED, _QUERIES, _DOCUMENTS = 200, 200, 400


def run() -> None:
    """Train and judge every arm with every seed; the result is written anew after each."""
    folder = Path(os.environ.get("BARTIZAN_ADAPTATION", "bartizan-adaptation")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if not data.is_dir():
        part_of(data_folder() / "scifact", data)
    record = Record("adaptation")
    results: dict[str, Any] = {}
    rows: list[dict[str, str]] = []
    for seed in SEEDS:
        judged: dict[str, Result] = {}
        for arm, adapted in ARMS.items():
            place = folder / f"seed-{seed}-{'adapted' if adapted else 'plain'}"
            err.print(f"seed {seed}, {arm}", markup=False)
            judged[arm], figures = _trained(place, data, seed=seed, adapted=adapted)
            results[f"{seed} {arm}"] = figures | {"nDCG@10": judged[arm].metrics["nDCG@10"]}
            rows.append(_row(seed, arm, results[f"{seed} {arm}"]))
            record.write({"runs": results, "steps": dict(STEPS)}, {"nDCG@10 and sparsity": rows})
        ahead = compare(*(_each(judged[arm]) for arm in ARMS))
        results[f"{seed} adaptation is ahead by"] = {"mean": ahead.mean, "low": ahead.low, "high": ahead.high}
        record.write({"runs": results, "steps": dict(STEPS)}, {"nDCG@10 and sparsity": rows})
    record.show()


def tables_of(*, seed: int, adapted: bool, steps: Mapping[str, int] = STEPS) -> dict[str, Any]:
    """The shipped small recipe with so many steps; without adaptation, contrast takes its steps too."""
    tables = read_toml(shipped()["csplade-small"], "recipe")
    contrast = steps["splade"] + (0 if adapted else steps["adapt"])
    lengths = {"adapt": steps["adapt"], "splade": contrast}
    kept = [step for step in tables["steps"] if adapted or step["kind"] != "adapt"]
    last = [step for step in kept if step["kind"] == "splade"][-1:]
    chosen = [step for step in kept if step["kind"] != "splade" or step in last]
    changed = [_with_steps(step, lengths.get(step["kind"])) for step in chosen]
    return tables | {"seed": seed, "steps": changed}


def _with_steps(step: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    kept = {key: value for key, value in step.items() if steps is None or key != "epochs"}
    return kept | ({} if steps is None else {"steps": steps, "batch_size": _BATCH})


def _trained(place: Path, data: Path, *, seed: int, adapted: bool) -> tuple[Result, dict[str, float]]:
    place.mkdir(exist_ok=True)
    path, judged = place / "given.toml", place / "judged.json"
    path.write_text(toml.dump(tables_of(seed=seed, adapted=adapted)), encoding="utf-8")
    train(Recipe.load(path, data=data), place / "run", resume=True)
    towers = place / "run/towers"
    if not judged.exists():
        result = Evaluation(
            data=data, tower=towers / "document", query_tower=towers / "query", engine="torch", command="adaptation"
        ).run()
        result.write(judged)
    texts = list(BeirData.read(data).corpus.values())[:200]
    values = TorchEncoder.open(towers / "document").encode(texts, "document").values
    active = [len(value.indices) for value in values if isinstance(value, SparseVector)]
    figures = {"active_terms": float(np.mean(active)), "zero_share": float(np.mean([n == 0 for n in active]))}
    return Result.read(judged), figures


def part_of(collection: Path, folder: Path) -> None:
    """Some train queries; some test queries over the documents of both and some others."""
    whole = BeirData.read(collection)
    test = whole.qrels("test")
    random = np.random.default_rng(0)
    learned = sorted(whole.qrels("train"))
    train_qrels = {learned[n]: whole.qrels("train")[learned[n]] for n in random.permutation(len(learned))[:_TRAINED]}
    asked = [sorted(test)[n] for n in random.permutation(len(test))[:_QUERIES]]
    needed = {document for query in asked for document in test[query]}
    needed |= {document for grades in train_qrels.values() for document in grades}
    rest = sorted(set(whole.corpus) - needed)
    needed |= {rest[n] for n in random.permutation(len(rest))[: max(0, _DOCUMENTS - len(needed))]}
    queries = [*train_qrels, *asked]
    with (collection / "corpus.jsonl").open(encoding="utf-8") as lines:
        documents = [record for line in lines if (record := json.loads(line))["_id"] in needed]
    write_collection(
        folder,
        documents,
        [{"_id": id, "text": whole.queries[id]} for id in queries],
        {
            split: [(query, id) for query in asking for id, grade in judged[query].items() if grade >= 1]
            for split, asking, judged in (("train", list(train_qrels), train_qrels), ("test", asked, test))
        },
    )


def _each(result: Result) -> dict[str, float]:
    return {query: values["nDCG@10"] for query, values in result.per_query.items()}


def _row(seed: int, arm: str, figures: Mapping[str, float]) -> dict[str, str]:
    return {
        "seed": str(seed),
        "run": arm,
        "nDCG@10": f"{figures['nDCG@10']:.4f}",
        "active terms of a document": f"{figures['active_terms']:,.0f}",
        "zero vectors": f"{figures['zero_share']:.1%}",
    }
