"""How many judged queries fine-tuning needs: one recipe with shares of them, judged at home and elsewhere (GTR's 10 %).

OUT/before/            the steps before the first that learns from judged queries, run once
OUT/<share>/           the rest of the recipe for each share of the judged queries, over links to what was made before
OUT/study.json         the report

A share is a part of every larger one, and each run takes as many steps as the recipe says, whatever its share is.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.console import err
from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.pair_tables import PairRecords
from bartizan_training.data.pairs import read_pairs
from bartizan_training.evaluate.evaluation import Evaluation
from bartizan_training.evaluate.results import Result
from bartizan_training.evaluate.significance import Difference
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.contrast import OnJudged
from bartizan_training.towers import link

REPORT = "study.json"
_BEFORE = "before"


class Row(BaseModel):
    """One share, judged on one collection."""

    fraction: float
    """0: the towers before any judged query."""
    queries: int
    """Judged queries that were learned from."""
    collection: str
    at_home: bool
    """Whether the judged queries are this collection's."""
    metrics: dict[str, float]
    against_all: dict[str, Difference] | None
    """How far ahead of the largest share, measure by measure; None for itself."""


class Report(BaseModel):
    """All rows of a study, collection by collection, the smallest share first."""

    study: str = "fraction"
    recipe: str
    seed: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FractionStudy:
    """What is to be run, and on what it is judged."""

    recipe: Recipe
    out: Path
    fractions: Sequence[float] = (0.1, 1.0)
    elsewhere: Sequence[Path] = ()
    """BEIR folders that nothing is learned from."""
    split: str = "test"
    engine: str = "torch"

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < share <= 1 for share in self.fractions):
            raise WrongUse(f"fractions are above 0 and at most 1, got {', '.join(map(str, self.fractions)) or 'none'}")
        if not any(map(_learns_from_judged, self.recipe.steps)):
            raise WrongUse(f"no step of '{self.recipe.name}' learns from judged queries, so that none can be left out")

    def run(self) -> Report:
        """Train what is not trained yet, judge everything, and write the report."""
        shares = sorted(set(self.fractions))
        for share in shares:
            for step in with_fraction(self.recipe, share).steps:
                if isinstance(step, OnJudged):
                    read_pairs(step.data)  # refused now rather than after the other runs
        runs = {0.0: self._before()} | {share: self._run(share) for share in shares}
        rows = [row for place in (self._home, *self.elsewhere) for row in self._judged(place, runs)]
        report = Report(recipe=self.recipe.name, seed=self.recipe.seed, rows=tuple(rows))
        write_aside(self.out / REPORT, report.model_dump_json(indent=2) + "\n")
        return report

    @property
    def _first(self) -> int:
        """The first step that a judged query has a part in."""
        return next(number for number, step in enumerate(self.recipe.steps) if _learns_from_judged(step))

    @property
    def _home(self) -> Path:
        step = self.recipe.steps[self._first]
        assert isinstance(step, OnJudged)
        if isinstance(step.data, PairRecords):
            raise WrongUse("the study judges on the folder that it learns from: give a BEIR folder, not records")
        return step.data.path

    def _before(self) -> Path | None:
        """The towers before any judged query; None when the recipe begins with one and imports its start itself."""
        if self._first == 0:
            return self.recipe.tower if isinstance(self.recipe.tower, Path) else None
        run = self.out / _BEFORE
        train(self.recipe.model_copy(update={"steps": self.recipe.steps[: self._first]}), run, resume=True)
        return run / "towers" if (run / "towers").exists() else None

    def _run(self, share: float) -> Path:
        run = self.out / f"{share:g}"
        err.print(f"{share:.0%} of the judged queries …", markup=False)
        if not run.exists() and self._first:
            _go_on_from(self.out / _BEFORE, run)
        train(with_fraction(self.recipe, share), run, resume=True)
        return run / "towers"

    def _judged(self, data: Path, runs: Mapping[float, Path | None]) -> list[Row]:
        """Every run on one collection, each beside the one with the largest share."""
        results = {share: self._evaluated(data, towers) for share, towers in runs.items() if towers}
        largest = max(results)
        rows = []
        for share, result in results.items():
            beside = None if share == largest else result.compared_with(results[largest], f"{largest:g}").comparison
            rows.append(
                Row(
                    fraction=share,
                    queries=self._queries(share),
                    collection=result.collection,
                    at_home=data == self._home,
                    metrics=result.metrics,
                    against_all=beside.measures if beside else None,
                )
            )
        return rows

    def _evaluated(self, data: Path, towers: Path) -> Result:
        both = (towers / "document").is_dir()
        document, query = (towers / "document", towers / "query") if both else (towers, towers)
        return Evaluation(data=data, tower=document, query_tower=query, split=self.split, engine=self.engine).run()

    def _queries(self, share: float) -> int:
        if not share:
            return 0
        step = with_fraction(self.recipe, share).steps[self._first]
        assert isinstance(step, OnJudged)
        return len(read_pairs(step.data).queries)


def with_fraction(recipe: Recipe, share: float) -> Recipe:
    """The recipe with this share of the judged queries in every step that learns from them."""
    steps = [
        step.model_copy(update={"data": step.data.model_copy(update={"share": share})})
        if isinstance(step, OnJudged) and step.judged
        else step
        for step in recipe.steps
    ]
    return recipe.model_copy(update={"steps": tuple(steps)})


def _learns_from_judged(step: object) -> bool:
    return isinstance(step, OnJudged) and step.judged


def _go_on_from(before: Path, run: Path) -> None:
    """A run that has the first steps behind it: artefacts never change, and are linked; the rest is copied."""
    aside = run.with_name(f"{run.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    ignored = shutil.ignore_patterns("artefacts", "towers")
    shutil.copytree(before, aside, ignore=ignored)
    link(before / "artefacts", aside / "artefacts")
    aside.rename(run)
