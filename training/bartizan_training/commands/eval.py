"""`bartizan eval`: how well towers find what a judged collection says is right."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base import console
from bartizan_connector.base.errors import WrongUse, interruptible
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_training.evaluate.results import Result

_WIDTH = 100


@interruptible("nothing was written; run it again")
def evaluate(
    data: Annotated[Path, typer.Argument(help="A judged collection in BEIR layout.")],
    tower: Annotated[Path | None, typer.Option(help="The tower (or its export) that encodes documents.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Judge this configuration's collection, as it is searched, instead of a tower.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")] = None,
    query_tower: Annotated[Path | None, typer.Option(help="The tower that encodes queries, if it is another.")] = None,
    engine: Annotated[str, typer.Option(help="onnx, torch, or triton (with --server).")] = "onnx",
    server: Annotated[str | None, typer.Option(metavar="URL", help="triton: the server, grpc://host:port.")] = None,
    split: Annotated[str, typer.Option(help="Which judgements: the name of a file in qrels/.")] = "test",
    baseline: Annotated[Path | None, typer.Option(help="An earlier result to compare with.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Keep the documents' vectors in this file; use them when they fit, never replace other documents'."
        ),
    ] = None,
    relevant_from: Annotated[
        int, typer.Option(help="The lowest grade that is relevant where a measure knows only yes and no.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: all cores.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Judge two towers by exact search; or, with --config, a stored collection with all its legs."""
    from bartizan_training.evaluate.results import check_place

    command = shlex.join(["bartizan", *sys.argv[1:]])
    _require_one(tower, config, others=bool(query_tower or keep or threads or server or engine != "onnx"))
    if out:
        check_place(out)
    if keep:
        check_place(keep, "file of vectors")
    if config:
        result = _stored(data, config, split, relevant_from, baseline, command)
    else:
        from bartizan_training.evaluate.evaluation import Evaluation

        assert tower
        result = Evaluation(
            data=data,
            tower=tower,
            query_tower=query_tower,
            split=split,
            engine=engine,
            threads=threads,
            server=server,
            relevant_from=relevant_from,
            baseline=baseline,
            keep=keep,
            command=command,
        ).run()
    if json:
        console.out.print_json(result.model_dump_json())
    else:
        _show(result)
    if out:
        result.write(out)  # after it is shown: hours of work are not lost to a full disk
        console.err.print(f"written to {out}", markup=False)


def _require_one(tower: Path | None, config: Path | None, *, others: bool) -> None:
    if (tower is None) == (config is None):
        raise WrongUse("give --tower, the tower to judge, or --config, the configuration whose collection to judge")
    if config and others:
        raise WrongUse(
            "with --config the towers and their engines are the configuration's: leave --query-tower, --engine, "
            "--server, --threads and --keep out"
        )


def _stored(data: Path, config: Path, split: str, relevant_from: int, baseline: Path | None, command: str) -> "Result":
    from bartizan_training.evaluate.configured import ConfiguredEvaluation

    return ConfiguredEvaluation(
        data=data,
        config=Config.load(config),
        split=split,
        relevant_from=relevant_from,
        baseline=baseline,
        command=command,
    ).run()


def _show(result: "Result") -> None:
    """The measures as a table; beside a baseline, how far the run is ahead and whether that can be chance."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    comparison = result.comparison
    compared = ("baseline", "change", "95 % interval", "p", "+/=/−") if comparison else ()
    table = Table(
        "measure", "this run" if comparison else result.query_tower, *compared, box=SIMPLE_HEAD, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for column in table.columns:  # narrow enough for 80 columns, and never cut
        column.no_wrap = True
    for name, value in result.metrics.items():
        cells = [name, f"{value:.4f}"]
        if comparison:
            found = comparison.measures[name]
            cells += [
                f"{value - found.mean:.4f}",
                f"{found.mean:+.4f}",
                f"{found.low:+.3f} … {found.high:+.3f}",
                f"{found.p:.3f}" if found.p >= 0.001 else "<0.001",
                f"{found.wins}/{found.ties}/{found.losses}",
            ]
        table.add_row(*cells, style="bold" if name.startswith("nDCG") else None)
    console.out.print(table, width=max(_WIDTH, console.out.width))
    cut, latency = result.truncated, result.latency_ms
    stored = cut.documents is None
    documents = "?" if stored else f"{cut.documents:,}"
    own = f" · {result.own_ids:,} documents with a query's own id are no answers to it" if result.own_ids else ""
    console.out.print(
        f"{result.collection}/{result.split}: {result.queries:,} queries, {result.documents:,} documents "
        f"(cut off: {cut.queries:,} and {documents}){own} · engine {result.engine} · space {result.space_id}",
        markup=False,
    )
    console.out.print(
        f"one query at a time ({latency.queries} of them): encode {latency.encode_p50:.1f} ms, 95 % under "
        f"{latency.encode_p95:.1f}; {'search' if stored else 'exact search'} {latency.search_p50:.1f} ms",
        markup=False,
    )
