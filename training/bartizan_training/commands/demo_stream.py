"""`bartizan demo-stream`: documents that change, and how soon a search finds what they have become."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.errors import require_installed
from bartizan_encoders import NEEDED

_NEEDED = {"train": NEEDED, "local": ("onnxruntime", "tokenizers", "faiss"), "stream": ("kafka",)}
"""Extra → modules that some step needs."""


def demo_stream(
    out: Annotated[Path, typer.Option(help="The folder that it makes.")] = Path("bartizan-demo-stream"),
    demo: Annotated[
        Path, typer.Option(help="What `bartizan demo` left, for its towers; without it MiniLM is exported.")
    ] = Path("bartizan-demo"),
    jars: Annotated[
        Path | None, typer.Option(help="Where the broker's jars are, or are brought to; default: the user's cache.")
    ] = None,
    edits: Annotated[int, typer.Option(min=1, help="End after so many edits.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, help="And at the latest after so many seconds of edits.")] = 60.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Edits a second.")] = 5.0,
) -> None:
    """Stream edits of Python's own documentation through Kafka, and show how fresh the index is.

    A real Apache Kafka broker, a Milvus server (or the embedded store, where the package `milvus` is not installed)
    and a worker, each a process of this machine; all of them have ended when the command ends. It needs Java, and
    Maven once, to bring the broker's jars.
    """
    for extra, modules in _NEEDED.items():
        require_installed(modules, extra)
    from bartizan_training.demo.stream import StreamDemo

    StreamDemo(out=out, demo=demo, jars=jars or _cache() / "kafka", edits=edits, seconds=seconds, rate=rate).run()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bartizan"
