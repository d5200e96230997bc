"""How an operator's tools stop a command: by SIGTERM, after which it finishes what it has begun."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread


@contextmanager
def told_to_stop() -> Iterator[Event]:
    """Set by SIGTERM, as an operator's tools send it; what was there before is put back."""
    stop = Event()
    if current_thread() is not main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
