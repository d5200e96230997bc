"""Do the shipped small recipes make towers better than what they started from, and in how many minutes?

Each recipe goes from nothing to two towers on SciFact, and the towers are judged on its test queries beside the start:
the paired difference with its interval. What it trains and judges lies in bartizan-recipes/, and is found there again:
a benchmark that was cut short goes on.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.artefacts import Artefact
from bartizan_training.evaluate.evaluation import Evaluation
from bartizan_training.evaluate.results import Result
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe, shipped
from bartizan_training.run import Run
from benchmarks.collections import data_folder
from benchmarks.record import Record

WORK = Path("bartizan-recipes")
COLLECTION = "scifact"
ENGINES = {"dense": "onnx", "sparse": "torch"}
"""What the towers are judged in."""
_MEASURE, _RECALL = "nDCG@10", "R@100"


def small() -> tuple[str, ...]:
    """The recipes that two cores can do with."""
    return tuple(name for name in shipped() if name.endswith("-small"))


def run(
    names: Sequence[str] = (), collection: str = COLLECTION, *, data: Path | None = None, work: Path = WORK
) -> None:
    """Train and judge each recipe, and write the result down after each."""
    if unknown := [name for name in names if name not in small()]:
        raise WrongUse(f"no small recipe is called {', '.join(unknown)}; there are {', '.join(small())}")
    folder = data or data_folder() / collection
    work = work if collection == COLLECTION else work / collection
    chosen = names or small()
    elsewhere = "" if collection == COLLECTION else f"-{collection}"
    record = Record(("recipes" if len(chosen) > 1 else f"recipes-{chosen[0]}") + elsewhere)
    rows: list[dict[str, str]] = []
    results: dict[str, Any] = {}
    for name in chosen:
        results[name] = one(name, folder, work / name)
        rows += _rows(name, results[name])
        record.write({"collection": folder.name, "recipes": results}, {f"From start to end, {folder.name}/test": rows})
    record.show()


def one(name: str, data: Path, work: Path) -> dict[str, Any]:
    """Train the recipe unless that was done, and judge its start, and what its steps left in the last space."""
    spent = _trained(name, data, work)
    run = Run(work / "run")
    recipe = Recipe.load(run.recipe)
    document, start = run.towers / "document", _start(recipe, run)
    before = _judged(work / "start.json", data, start, start, None)
    found = {
        step: _judged(work / f"{step}.json", data, document, query, work / "start.json")
        for step, query in _queries(recipe, run, document)
    }
    return {
        "minutes": spent,
        "start": _facts(before),
        "steps": {step: _facts(result) for step, result in found.items()},
    }


def _start(recipe: Recipe, run: Run) -> Path:
    """The tower that the recipe begins with; where it makes its own, the first that it made."""
    if recipe.start_towers:
        return recipe.start_towers["document"]
    steps = enumerate(zip(recipe.step_names, recipe.steps, strict=True), start=1)
    made = next(run.done(number, name) for number, (name, table) in steps if table.gives == "towers")
    assert made
    return made.folder / "document"


def _trained(name: str, data: Path, work: Path) -> dict[str, float] | None:
    """Minutes from nothing to two towers, by the clock and of processor time; None when a run was interrupted, so that
    nobody knows."""
    file = work / "minutes.json"
    if (work / "run" / "towers").is_dir():
        return dict(json.loads(file.read_text())) if file.exists() else None
    whole = not (work / "run").exists()
    err.print(f"training {name} …", markup=False)
    begun, used = time.monotonic(), time.process_time()
    train(Recipe.load(shipped()[name], data=data), work / "run", resume=True)
    spent = {"clock": (time.monotonic() - begun) / 60, "processor": (time.process_time() - used) / 60}
    if whole:
        file.write_text(json.dumps(spent))
    return spent if whole else None


def _queries(recipe: Recipe, run: Run, document: Path) -> Iterator[tuple[str, Path]]:
    """Each step that gave a query tower for the last document tower."""
    space = TowerSpec.read(document).tower_id
    for number, (step, table) in enumerate(zip(recipe.step_names, recipe.steps, strict=True), start=1):
        made: Artefact | None = run.done(number, step)
        if made and table.gives == "towers" and TowerSpec.read(made.folder / "document").tower_id == space:
            yield step, made.folder / "query"


def _judged(file: Path, data: Path, document: Path, query: Path, baseline: Path | None) -> Result:
    """Judge once; the documents' vectors are kept for the next query tower."""
    if not file.exists():
        dense = TowerSpec.read(document).kind == "dense"
        keep = file.parent / f"{TowerSpec.read(document).tower_id}.npz" if dense else None
        engine = ENGINES["dense" if dense else "sparse"]
        result = Evaluation(
            data=data, tower=document, query_tower=query, engine=engine, baseline=baseline, keep=keep
        ).run()
        result.write(file)
    return Result.read(file)


def _facts(result: Result) -> dict[str, Any]:
    change = result.comparison.measures[_MEASURE] if result.comparison else None
    return {
        "metrics": result.metrics,
        "change": None if change is None else {"mean": change.mean, "low": change.low, "high": change.high},
        "encode_ms": result.latency_ms.encode_p50,
        "queries": result.queries,
        "documents": result.documents,
    }


def _rows(name: str, facts: Mapping[str, Any]) -> list[dict[str, str]]:
    spent = facts["minutes"]
    minutes = "?" if spent is None else f"{spent['clock']:.0f} ({spent['processor']:.0f})"
    rows = [_row(name, "start", facts["start"], "")]
    return rows + [_row(name, step, found, minutes) for step, found in facts["steps"].items()]


def _row(name: str, towers: str, found: Mapping[str, Any], minutes: str) -> dict[str, str]:
    change = found["change"]
    return {
        "recipe": name,
        "towers after": towers,
        _MEASURE: f"{found['metrics'][_MEASURE]:.4f}",
        "change": "" if change is None else f"{change['mean']:+.4f}",
        "95 % interval": "" if change is None else f"{change['low']:+.4f} … {change['high']:+.4f}",
        _RECALL: f"{found['metrics'][_RECALL]:.4f}",
        "ms a query": f"{found['encode_ms']:.1f}",
        "minutes, whole recipe (of processor time)": minutes,
    }
