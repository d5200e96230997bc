"""`bartizan mine`: hard negatives of a judged collection, for training."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from bartizan_connector.base.console import err
from bartizan_connector.base.console import out as stdout
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_encoders import NEEDED


def mine(
    data: Annotated[Path, typer.Argument(help="A judged collection in BEIR layout.")],
    tower: Annotated[Path, typer.Option(help="The tower that encodes documents.")],
    out: Annotated[Path, typer.Option(help="The file to write: .jsonl, or .tsv of query and document ids.")],
    query_tower: Annotated[Path | None, typer.Option(help="The tower that encodes queries, if it is another.")] = None,
    split: Annotated[str, typer.Option(help="Queries with a positive document in qrels/<split>.tsv.")] = "train",
    skip: Annotated[int, typer.Option(min=0, help="Leave out the very nearest: many answer the query.")] = 0,
    depth: Annotated[int, typer.Option(min=1, help="Rank of the last document that is taken.")] = 50,
    below: Annotated[
        float | None, typer.Option(help="Drop what scores above so many times the positive, as 0.95.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="A cross-encoder (RUN/artefacts/…-cross_encoder/…): drop what it scores above the positive."),
    ] = None,
    teacher_margin: Annotated[float, typer.Option(help="… or not so much below it.")] = 0.0,
    count: Annotated[int | None, typer.Option(min=1, help="Keep the first so many of what is left.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Cut texts here to rank them.")] = None,
    precision: Annotated[str, typer.Option(help="Arithmetic inside the towers: fp32 or bf16.")] = "fp32",
    keep: Annotated[
        Path | None, typer.Option(help="Keep vectors in this folder, and use them again for the same tower and texts.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads on CPU; 0: torch's choice.")] = 0,
) -> None:
    """Find documents that lie near a query and do not answer it, for `negatives` in a recipe.

    All documents are ranked for each query; the positives are left out. What nobody judged may answer a query all the
    same, most of all the very nearest: --skip, --below and --teacher each drop some of it.

    Vectors lie on disk and are searched in blocks, by faiss where it is installed, so that memory does not grow with
    the collection's vectors.
    """
    require_installed((*NEEDED, "accelerate"), "train")
    _check(out, teacher, teacher_margin, keep)
    import torch

    if threads:
        torch.set_num_threads(threads)
    with TemporaryDirectory() as scratch:
        keys: dict[str, object] = {
            "skip": skip,
            "depth": depth,
            "below": below,
            "count": count,
            "max_tokens": max_tokens,
        }
        keys |= {"split": split, "teacher_margin": teacher_margin, "precision": precision}
        found = _mined(data, keys, (tower, query_tower or tower), teacher, keep or Path(scratch))
    if found is not None:
        _write(out, found)


def _write(out: Path, found: dict[str, list[str]]) -> None:
    """Save, and say how many there are."""
    from bartizan_training.data.negatives import write_negatives

    write_negatives(out, found)
    some = sum(map(bool, found.values()))
    stdout.print(
        f"{sum(map(len, found.values())):,} negatives for {some:,} of {len(found):,} queries, written to {out}",
        markup=False,
    )


def _check(out: Path, teacher: Path | None, margin: float, keep: Path | None) -> None:
    """Refuse what nothing can be written to or read from."""
    if out.suffix not in (".jsonl", ".tsv"):
        raise WrongUse(f"--out {out}: expected a name that ends in .jsonl or .tsv")
    if not out.parent.is_dir():
        raise WrongUse(f"--out {out}: the folder {out.parent} is not there")
    if teacher is not None and not teacher.is_dir():
        raise WrongUse(f"--teacher {teacher} is not a folder; give what a cross_encoder step has made")
    if margin and teacher is None:
        raise WrongUse(f"--teacher-margin {margin:g} is about the scores of a teacher; give --teacher too")
    if keep is not None and keep.exists() and not keep.is_dir():
        raise WrongUse(f"--keep {keep} is a file; give a folder")


def _mined(
    data: Path, keys: dict[str, object], towers: tuple[Path, Path], teacher: Path | None, folder: Path
) -> dict[str, list[str]] | None:
    """In the main process: the others only help."""
    from accelerate import Accelerator

    from bartizan_connector.base.tables import check
    from bartizan_training.artefacts import Artefacts
    from bartizan_training.mine.exact import Mine, mined
    from bartizan_training.step import Place
    from bartizan_training.towers import PlannedTower, Towers

    table = check(Mine, {"kind": "mine", "path": str(data.absolute()), **keys}, data)
    document, query = towers
    table.plan("mine", {"document": PlannedTower.read(document), "query": PlannedTower.read(query)})
    accelerator = Accelerator()
    place = Place(
        accelerator=accelerator,
        folder=folder / "mine",
        artefacts=Artefacts(folder),
        name="mine",
        number=1,
        recipe_seed=0,
    )
    err.print(f"mining {data} …", markup=False)
    found = mined(table, Towers.load(document, query), teacher, place)
    return found if accelerator.is_main_process else None
