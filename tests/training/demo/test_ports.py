"""Ports of servers: what one process was given, no other is given while it lives, whether somebody listens or not."""

import socket
import subprocess
import sys

import pytest

from bartizan_connector.base.errors import Stop
from bartizan_training.demo.servers import ports

FIRST = 32_000
"""Beyond those that servers are given here, and before the kernel's own."""
_OTHER = f"""
from bartizan_training.demo.servers import ports
ports._PORTS_FROM, ports._PORTS_TO = {FIRST}, {FIRST + 40}
print(ports.free_ports(13)[0], flush=True)
input()
"""


def test_ports_are_given_to_one_process_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_PORTS_FROM", FIRST)
    monkeypatch.setattr(ports, "_PORTS_TO", FIRST + 40)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _OTHER], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        (first,) = {FIRST, FIRST + 20} - {theirs}
        with socket.create_server(("127.0.0.1", first + 3)), pytest.raises(Stop, match="no 13 free"):
            ports.free_ports(13)
        assert ports.free_ports(13) == list(range(first, first + 13))
        with pytest.raises(Stop, match="end some of what listens"):
            ports.free_ports(1)
        other.communicate("")
    assert ports.free_ports(13)[0] == theirs
