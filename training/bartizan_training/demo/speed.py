"""How long a single query takes in each of two towers, measured in turns so that other work hits both alike."""

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from bartizan_connector.base import console
from bartizan_connector.opening import load_encoder

_ROUNDS = 5
_WARM_UP = 5


def milliseconds(exports: Sequence[Path], texts: Sequence[str]) -> list[float]:
    """The median for each export: one query at a time, one thread, ONNX Runtime."""
    taken: list[list[float]] = [[] for _ in exports]
    with ExitStack() as stack:
        encoders = [stack.enter_context(closing(load_encoder(export, "onnx", threads=1))) for export in exports]
        with console.progress("timing single queries", total=_ROUNDS) as tick:
            for _ in range(_ROUNDS):
                for encoder, times in zip(encoders, taken, strict=True):
                    for number, text in enumerate([*texts[:_WARM_UP], *texts]):
                        begun = time.perf_counter()
                        encoder.encode([text], "query")
                        if number >= _WARM_UP:
                            times.append((time.perf_counter() - begun) * 1000)
                tick()
    return [statistics.median(times) for times in taken]
