"""A process that is forked has threads of its own to search by, and to look whether the name has moved."""

import os
import threading
import time
import warnings
from collections.abc import Callable

import pytest

from bartizan_connector.search.lookout import Lookout
from bartizan_connector.search.threads import LegThreads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
SOON = 10.0


def _holds_in_a_child(check: Callable[[], bool]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons advise against forks beside threads
        child = os.fork()
    if child == 0:
        held = False
        try:
            held = check()
        finally:
            os._exit(0 if held else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_process_looks_by_itself_once_it_is_used() -> None:
    looks: list[int] = []
    lookout = Lookout(lambda: looks.append(os.getpid()), 0.05)

    def used() -> bool:
        lookout.awake()
        deadline = time.monotonic() + SOON
        while os.getpid() not in looks and time.monotonic() < deadline:
            time.sleep(0.01)
        lookout.now().result(SOON)
        lookout.close()
        return os.getpid() in looks

    with lookout._changed:  # as it may be held when the process is copied
        assert _holds_in_a_child(used)
    lookout.now().result(SOON)
    lookout.close()


def test_a_forked_process_that_does_not_search_begins_no_thread() -> None:
    lookout = Lookout(lambda: None, 1000)
    assert _holds_in_a_child(lambda: threading.active_count() == 1)
    lookout.close()


def test_the_threads_of_a_leg_answer_in_a_forked_process() -> None:
    threads = LegThreads("dense")
    assert threads.submit(os.getpid, time.perf_counter() + SOON).result(SOON) == os.getpid()
    assert _holds_in_a_child(lambda: threads.submit(os.getpid, time.perf_counter() + SOON).result(SOON) == os.getpid())
    threads.close()
