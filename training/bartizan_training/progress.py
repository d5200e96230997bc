"""Progress that only one of several training processes shows."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator

from bartizan_connector.base import progress as shown
from bartizan_connector.base.progress import Tick


@contextmanager
def progress(accelerator: Accelerator, what: str, *, total: int, begun: int = 0) -> Iterator[Tick]:
    """`base.progress` in the main process, silence in the others."""
    if accelerator.is_main_process:
        with shown.progress(what, total, begun=begun) as tick:
            yield tick
    else:
        yield lambda done=1, note="": None
