"""`bartizan demo`: the whole chain on a corpus that every machine has."""

from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.errors import require_installed
from bartizan_encoders import NEEDED

_NEEDED = {
    "train": (*NEEDED, "accelerate", "onnx", "ir_measures"),
    "local": ("onnxruntime", "tokenizers", "faiss"),
}
"""Extra → modules that some step needs."""


def demo(
    out: Annotated[Path, typer.Option(help="The folder that the demo makes.")] = Path("bartizan-demo"),
    seed: Annotated[int, typer.Option(min=0, help="On one machine: same seed, same hits.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A short form: fewer documents, hardly any training.")] = False,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="Threads that train; 0: as many as cores are idle. Same seed and threads, same towers."
        ),
    ] = 0,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights: needs neither hub nor weights.")
    ] = False,
) -> None:
    """Train two towers, distil one, export, ingest, judge and search: all on Python's own documentation.

    The corpus is what the running Python says about its standard library. Each step is a command that you can type
    yourself; it is shown before it runs, and everything it makes stays in the folder for you to go on with.
    """
    for extra, modules in _NEEDED.items():
        require_installed(modules, extra)  # said at once, rather than after minutes of training
    from bartizan_training.demo.steps import Demo

    Demo(out=out, seed=seed, quick=quick, from_scratch=from_scratch, threads=threads).run()
