"""How an operator's tools stop a command: by SIGTERM, after which it finishes what it has begun."""

import signal
from _thread import start_new_thread
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread


@contextmanager
def told_to_stop() -> Iterator[Event]:
    """Set by SIGTERM, as an operator's tools send it; what was there before is put back.

    It is set from a thread of its own: the signal may interrupt who just holds the event's lock, to wait for it or to
    set it for an earlier signal, and would wait for that lock for ever.
    """
    stop = Event()
    if current_thread() is not main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: start_new_thread(stop.set, ()))
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
