"""One at a time in a folder, across processes; who dies lets the next one in."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bartizan_connector.base.alone import alone_in, fcntl

HOLDER = """
import sys
from pathlib import Path
from bartizan_connector.base.alone import alone_in
with alone_in(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(fcntl is None, reason="this system has no such locks")
def test_a_second_one_waits_until_the_first_dies(tmp_path: Path) -> None:
    entered = threading.Event()

    def enter() -> None:
        with alone_in(tmp_path):
            entered.set()

    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.2)
        holder.kill()
    waiting.join(10)
    assert entered.is_set()
    assert list(tmp_path.iterdir()) == []
