"""`bartizan study quantised`: what fewer bits cost and save."""

from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base import console
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_encoders import NEEDED

_FORMS = ("fp32", "bf16", "int8-weights", "int8", "int4-weights")


def quantised(
    tower: Annotated[Path, typer.Option(help="The tower that encodes documents.")],
    data: Annotated[Path, typer.Option(help="A judged collection in BEIR layout.")],
    query_tower: Annotated[Path | None, typer.Option(help="The tower that encodes queries, if it is another.")] = None,
    forms: Annotated[str, typer.Option(help="Which, with commas between.")] = ",".join(_FORMS),
    split: Annotated[str, typer.Option(help="Which judgements: the name of a file in qrels/.")] = "test",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write all figures to this JSON file.")] = None,
) -> None:
    """One tower in several numeric forms: quality, latency of single queries, and size.

    Documents are encoded once, in fp32; queries in each form. fp32, int8 (weights and activations, as `bartizan export
    --precision int8` makes it) and the forms that quantise weights alone run in ONNX Runtime, bf16 in torch.
    """
    require_installed((*NEEDED, "onnx", "onnxruntime", "ir_measures"), "train")
    chosen = tuple(part.strip() for part in forms.split(",") if part.strip())
    if unknown := [form for form in chosen if form not in _FORMS]:
        raise WrongUse(f"--forms names {', '.join(unknown)}; there are {', '.join(_FORMS)}")
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from bartizan_training.evaluate.results import check_place
    from bartizan_training.studies.quantised import COLUMNS, Quantised, table, write

    if out:
        check_place(out)
    study = Quantised(tower=tower, data=data, query_tower=query_tower, split=split, forms=chosen, threads=threads)
    rows = study.run()
    shown = Table(*COLUMNS, box=SIMPLE_HEAD, pad_edge=False)
    for cells in table(rows):
        shown.add_row(*cells)
    console.out.print(shown, width=max(110, console.out.width))
    if out:
        facts = {"tower": str(tower), "data": str(data), "split": split, "threads": threads}
        write(rows, out, facts)
        console.err.print(f"written to {out}", markup=False)
