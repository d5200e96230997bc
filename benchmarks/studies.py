"""The studies on real towers, on a part of SciFact: fewer bits, fewer judged queries, sizes and shares of the data.

Everything lies in the folder BARTIZAN_STUDIES (`bartizan-studies`), where an interrupted one goes on. The towers with
fewer bits are those that the benchmark `recipes` left of csplade-small. The two studies that train take recipes of
fewer steps: they show the commands at work and the size of the differences, not the recipes at their best.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.recipe import Recipe, shipped
from bartizan_training.settings import Training
from bartizan_training.studies.forms import FORMS
from bartizan_training.studies.fraction import FractionStudy
from bartizan_training.studies.quantised import COLUMNS, Quantised, table
from bartizan_training.studies.scaling import Scaling
from benchmarks.adaptation import part_of
from benchmarks.collections import data_folder
from benchmarks.recipes import WORK
from benchmarks.record import Record

FRACTIONS = (0.1, 1.0)
LAYERS, SHARES = (1, 2, 4), (0.2, 0.5, 1.0)
STUDIES = ("quantised", "fraction", "scaling")
STEPS = {"t5": 60, "weak": 100, "judged": 40, "titles": 24}
"""Of the steps of that name, at most."""


def run(names: Sequence[str] = (), towers: Path = WORK / "csplade-small" / "run" / "towers") -> None:
    """Each study, or those that are named, with a result of its own."""
    if unknown := [name for name in names if name not in STUDIES]:
        raise WrongUse(f"no study is called {', '.join(unknown)}; there are {', '.join(STUDIES)}")
    chosen = [name for name in STUDIES if name in (names or STUDIES)]
    if "quantised" in chosen and not towers.is_dir():
        raise WrongUse(
            f"{towers} is not there: first train it, by `python -m benchmarks recipes --recipe csplade-small`"
        )
    folder = Path(os.environ.get("BARTIZAN_STUDIES", "bartizan-studies")).absolute()
    data = folder / "scifact-part"
    if not data.is_dir():
        part_of(data_folder() / "scifact", data)
    for name in chosen:
        err.print(f"study {name} …", markup=False)
        match name:
            case "quantised":
                quantised(towers, data)
            case "fraction":
                fraction(data, folder / name)
            case "scaling":
                scaling(data, folder / name)


def quantised(towers: Path, data: Path) -> None:
    """The towers of csplade-small in every form."""
    record = Record("studies-quantised")
    study = Quantised(tower=towers / "document", data=data, query_tower=towers / "query", forms=tuple(FORMS))
    rows = study.run()
    cells = [dict(zip(COLUMNS, row, strict=True)) for row in table(rows)]
    record.write({"forms": [asdict(row) for row in rows]}, {f"csplade-small, {_told(data)}": cells})
    record.show()


def fraction(data: Path, folder: Path) -> None:
    """gtr-small with fewer steps, on shares of the judged queries."""
    record = Record("studies-fraction")
    report = FractionStudy(recipe=shorter("gtr-small", data), out=folder, fractions=FRACTIONS).run()
    rows = []
    for row in report.rows:
        gap = row.against_all["nDCG@10"] if row.against_all else None
        rows.append(
            {
                "share": f"{row.fraction:.0%}",
                "judged queries": f"{row.queries}",
                "nDCG@10": f"{row.metrics['nDCG@10']:.4f}",
                "R@100": f"{row.metrics['R@100']:.4f}",
                "behind the largest share (95 %)": f"{gap.mean:+.4f} ({gap.low:+.3f} … {gap.high:+.3f})" if gap else "",
            }
        )
    record.write(report.model_dump(), {f"gtr-small in fewer steps, {_told(data)}": rows})
    record.show()


def scaling(data: Path, folder: Path) -> None:
    """scalingnote-small's titles and judged queries in fewer steps, over sizes and shares."""
    record = Record("studies-scaling")
    recipe = shorter("scalingnote-small", data)
    outcome = Scaling(recipe=recipe, data=data, out=folder, layers=LAYERS, shares=SHARES).run()
    law = outcome.law
    rows = [
        {
            "layers": f"{cell.layers}",
            "share": f"{cell.share:.0%}",
            "pairs": f"{cell.pairs:,}",
            "weights of the layers": f"{cell.parameters / 1e6:.1f} M",
            "held-out loss": f"{cell.loss:.3f}",
            "the law's": f"{law.at(cell.parameters, cell.pairs):.3f}",
            "residual": f"{residual:+.3f}",
            "nDCG@10": f"{cell.ndcg:.4f}",
        }
        for cell, residual in zip(outcome.cells, law.residuals, strict=True)
    ]
    facts: dict[str, Any] = asdict(outcome)
    record.write(facts, {f"{law}; explains {law.explained:.1%} of the variance; {_told(data)}": rows})
    record.attach(".svg", (folder / "scaling.svg").read_text(encoding="utf-8"))
    record.show()


def shorter(name: str, data: Path) -> Recipe:
    """The shipped recipe with no more steps than are given here."""
    recipe = Recipe.load(shipped()[name], data=data)
    steps = tuple(
        step.model_copy(update={"steps": STEPS[name]})
        if name in STEPS and isinstance(step, Training) and (step.steps or 0) > STEPS[name]
        else step
        for name, step in zip(recipe.step_names, recipe.steps, strict=True)
    )
    return recipe.model_copy(update={"steps": steps})


def _told(data: Path) -> str:
    read = BeirData.read(data)
    return f"{len(read.qrels('test'))} test queries over {len(read.corpus)} documents"
