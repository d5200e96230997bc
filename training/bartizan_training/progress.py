"""A progress bar that only one of several training processes shows."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator

from bartizan_connector.base import console
from bartizan_connector.base.console import Tick


@contextmanager
def progress(accelerator: Accelerator, what: str, *, total: int) -> Iterator[Tick]:
    """`console.progress` in the main process, silence in the others."""
    if accelerator.is_main_process:
        with console.progress(what, total) as tick:
            yield tick
    else:
        yield lambda done=1: None
