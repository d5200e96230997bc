"""The threads of a leg: what waits in the line is told at once when the leg is closed."""

import time
from threading import Event

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.search.threads import LegThreads


def test_a_call_in_the_line_of_a_leg_that_is_closed_is_told_so_and_waits_no_longer() -> None:
    threads, begun, go_on = LegThreads("dense", threads=1), Event(), Event()

    def hold() -> str:
        begun.set()
        go_on.wait(30)
        return "done"

    deadline = time.perf_counter() + 30
    running = threads.submit(hold, deadline)
    assert begun.wait(10)
    waiting = threads.submit(lambda: "never", deadline)
    threads.close()
    with pytest.raises(Retry, match="the dense leg was closed"):
        waiting.result(timeout=1)
    go_on.set()
    assert running.result(timeout=10) == "done"
