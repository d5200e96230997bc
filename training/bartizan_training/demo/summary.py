"""What the demo found, and what to type next."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bartizan_connector.base.console import out
from bartizan_connector.encode.settings import OnnxSettings
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.demo.layout import Layout
from bartizan_training.demo.shell import Shell, typed
from bartizan_training.evaluate.results import Result
from bartizan_training.evaluate.timing import one_query, take_turns, with_progress

MEASURE = "nDCG@10"
_ROUNDS = 5
_WARM_UP = 5
_PYTHON = """\
from bartizan_connector import Retriever

with Retriever.open("{config}") as retriever:
    for hit in retriever.search("wait until a thread is done", k=5):
        print(f"{{hit.score:.4f}}  {{hit.fields['title']}}")"""


def figures(layout: Layout, queries: Sequence[str]) -> Table:
    """Teacher and distilled tower beside each other."""
    exports = {"teacher": layout.document, "distilled": layout.query}
    found = {name: Result.read(layout.result(name)).metrics[MEASURE] for name in exports}
    taken = milliseconds(exports, queries)
    table = Table("query tower", "tower_id", f"{MEASURE}, held out", "one query", "on disk")
    for name, export in exports.items():
        spec = TowerSpec.read(export)
        size = sum(path.stat().st_size for path in export.iterdir()) / 1e6
        cells = (f"{found[name]:.4f}", f"{taken[name]:.2f} ms", f"{size:.1f} MB")
        table.add_row(f"{name}, {spec.precision}", spec.tower_id, *cells)
    kept, ratio = found["distilled"] / found["teacher"], taken["teacher"] / taken["distilled"]
    table.caption = f"The distilled tower keeps {kept:.1%} of its teacher's {MEASURE} and is {ratio:.1f} × as fast."
    return table


def milliseconds(exports: Mapping[str, Path], queries: Sequence[str]) -> dict[str, float]:
    """The median for one query in each export: one thread, ONNX Runtime."""
    with ExitStack() as stack:
        engines = {
            name: one_query(stack.enter_context(closing(OnnxSettings(threads=1).open(export))))
            for name, export in exports.items()
        }
        blocks = [[*queries[:_WARM_UP], *queries]] * _ROUNDS
        times = take_turns(engines, with_progress(blocks), warm_up=_WARM_UP)
    return {name: statistics.median(taken.wall) for name, taken in times.items()}


def show_next(shell: Shell, layout: Layout) -> None:
    """What to type next; each line works from where the user is."""
    shell.step(f"Done in {shell.elapsed}. What to type next")
    for arguments, remark in suggestions(layout):
        out.print(f"   [bold]{escape(typed(arguments))}[/bold]\n       [dim]{escape(remark)}[/dim]")
    out.print("\n   In Python:\n")
    for line in python(layout).splitlines():
        out.print(f"   {escape(line)}")


def suggestions(layout: Layout) -> list[tuple[tuple[str | Path, ...], str]]:
    """Commands, and what each shows."""
    config = ("--config", layout.config)
    towers = ("--tower", layout.document, "--query-tower", layout.query)
    judge = ("eval", layout.corpus, *towers, "--keep", layout.vectors)
    return [
        (("search", "wait until a thread is done", *config), "ask in your own words"),
        (("search", "open a file", *config, "--filter", "module == 'io'"), "only where a field says so"),
        ((*judge, "--split", "dev"), "the queries that the recipe's settings were chosen by"),
        (("ingest", layout.config), "again: what is stored already is not encoded again"),
        (("tower", "show", layout.query), "what a tower promises about its vectors"),
        (("doctor", *config), "what is installed and configured, and whether it fits together"),
    ]


def python(layout: Layout) -> str:
    """A program that searches what the demo built."""
    return _PYTHON.format(config=layout.config.as_posix())
